//! What membership makes of lists and news; nobody is really asked here.

use super::*;
use crate::discovery::Candidate;

const SEED: KeySeed = KeySeed::new([4; 16]);

/// What a tier was told.
#[derive(Debug, Default)]
struct Recorder {
    opened: Vec<String>,
    closed: Vec<Place>,
    rosters: Vec<Vec<String>>,
}

impl Tier for Recorder {
    fn open(&mut self, address: &str, _: watch::Receiver<Dialect>) -> Result<Place, EndpointError> {
        self.opened.push(address.to_owned());
        Ok(self.opened.len() - 1)
    }

    fn close(&mut self, place: Place) {
        self.closed.push(place);
    }

    fn publish(&mut self, roster: Roster) {
        let named = |(member, place): (&Member, &Option<Place>)| match place {
            Some(place) => format!("{}#{}@{place}", member.id, member.inst),
            None => format!("{}#{}", member.id, member.inst),
        };
        self.rosters.push(roster.view.members().iter().zip(&roster.places).map(named).collect());
    }
}

struct Silence;

impl Voice for Silence {
    fn hello(&self) -> Vec<u8> {
        Vec::new()
    }
}

struct Bench {
    membership: Membership<Recorder>,
    now: Instant,
    _news: mpsc::Receiver<News>,
    _list: watch::Sender<Candidates>,
}

impl Bench {
    fn new() -> Self {
        let (list, candidates) = watch::channel(None);
        let config = Config {
            seed: SEED,
            candidates,
            keyring: None,
            thin: false,
            voice: Arc::new(Silence),
            counts: Arc::default(),
        };
        let (membership, news) = Membership::new(config, Recorder::default());
        let now = Instant::now();
        Self { membership, now, _news: news, _list: list }
    }

    /// A list of `port` or `port!` (draining) or `port?` (starting).
    fn list(&mut self, ports: &[&str]) {
        let candidate = |text: &&str| {
            let standing = match text.chars().last() {
                Some('!') => Standing::Draining,
                Some('?') => Standing::Starting,
                _ => Standing::Serving,
            };
            let port = text.trim_end_matches(['!', '?']);
            Candidate { address: format!("127.0.0.1:{port}"), standing, pod: None }
        };
        let list: Arc<[Candidate]> = ports.iter().map(candidate).collect();
        self.membership.list(&Some(list), self.now);
        self.membership.count();
    }

    fn hear(&mut self, port: u16, status: Status) {
        let address = format!("127.0.0.1:{port}");
        let number = self.membership.seats[&address].number;
        self.membership.note(News { address, number, status }, self.now);
        self.membership.count();
    }

    fn serving(&mut self, port: u16, id: &str, inst: u64) {
        self.hear(port, Status::Serving(Member { id: id.to_owned(), inst }));
    }

    fn passes(&mut self, time: Duration) {
        self.now += time;
        self.membership.close_absent(self.now);
    }

    fn rosters(&mut self) -> Vec<Vec<String>> {
        std::mem::take(&mut self.membership.tier.rosters)
    }

    fn closed(&mut self) -> Vec<Place> {
        std::mem::take(&mut self.membership.tier.closed)
    }

    /// Two members that were published, at places 0 and 1.
    fn pair() -> Self {
        let mut bench = Self::new();
        bench.list(&["1", "2"]);
        bench.serving(1, "a", 1);
        bench.serving(2, "b", 1);
        assert_eq!(bench.rosters(), [["a#1@0", "b#1@1"]]);
        bench
    }
}

#[tokio::test]
async fn the_first_view_waits_for_everybody_and_for_no_one_else() {
    let mut bench = Bench::new();
    bench.list(&["1", "2", "3?"]);
    bench.serving(1, "a", 1);
    assert!(bench.rosters().is_empty() && bench.membership.join_at.is_some());
    bench.hear(2, Status::Away);
    assert_eq!(bench.rosters(), [["a#1@0"]]);
}

#[tokio::test]
async fn leaves_apply_at_once_and_joins_settle() {
    let mut bench = Bench::pair();
    bench.list(&["1", "2", "3"]);
    bench.serving(3, "c", 1);
    assert!(bench.rosters().is_empty());
    assert_eq!(bench.membership.join_at, Some(bench.now + JOIN_SETTLE));
    bench.hear(1, Status::Draining);
    assert_eq!(bench.rosters(), [["b#1@1", "c#1@2"]]);
    assert_eq!(bench.membership.join_at, None);
    assert_eq!(bench.membership.config.counts.draining.load(Relaxed), 1);
}

#[tokio::test]
async fn a_new_instance_is_a_new_member_at_once() {
    let mut bench = Bench::pair();
    bench.serving(2, "b", 9);
    assert_eq!(bench.rosters(), [["a#1@0", "b#9@1"]]);
}

#[tokio::test]
async fn what_the_cluster_calls_draining_or_not_ready_is_no_member() {
    for mark in ["2!", "2?"] {
        let mut bench = Bench::pair();
        bench.list(&["1", mark]);
        assert_eq!(bench.rosters(), [["a#1@0"]], "{mark}");
        assert!(bench.closed().is_empty(), "it is still listed");
        bench.list(&["1", "2"]);
        assert!(bench.rosters().is_empty() && bench.membership.join_at.is_some(), "{mark}");
    }
}

#[tokio::test]
async fn absence_confirms_a_death_and_gives_the_living_a_second() {
    let mut bench = Bench::pair();
    bench.hear(1, Status::Away);
    assert_eq!(bench.rosters(), [["b#1@1"]]);
    bench.list(&["3"]);
    assert_eq!(bench.closed(), [0], "who is silent and not listed is gone");
    assert!(bench.rosters().is_empty());
    assert_eq!(bench.membership.next_absence(), Some(bench.now + ABSENCE_SETTLE));
    bench.passes(ABSENCE_SETTLE);
    assert_eq!((bench.rosters(), bench.closed()), (vec![vec![]], vec![1]));
}

#[tokio::test]
async fn a_member_that_is_not_listed_any_more_leaves_when_it_falls_silent() {
    let mut bench = Bench::pair();
    bench.list(&["2"]);
    assert!(bench.rosters().is_empty(), "it may only be between two slices");
    bench.hear(1, Status::Away);
    assert_eq!((bench.rosters(), bench.closed()), (vec![vec!["b#1@1".to_owned()]], vec![0]));
}

#[tokio::test]
async fn a_pod_between_two_slices_stays() {
    let mut bench = Bench::pair();
    bench.list(&["1"]);
    bench.passes(ABSENCE_SETTLE / 2);
    bench.list(&["1", "2"]);
    bench.passes(ABSENCE_SETTLE);
    assert!(bench.rosters().is_empty() && bench.closed().is_empty());
    // Absent and then silent: not even the second.
    bench.list(&["1"]);
    bench.hear(2, Status::Away);
    assert_eq!(bench.closed(), [1]);
}

#[tokio::test]
async fn late_news_of_a_former_holder_are_not_its_successors() {
    let mut bench = Bench::pair();
    let number = bench.membership.seats["127.0.0.1:2"].number;
    bench.hear(2, Status::Away);
    bench.list(&["1"]);
    bench.list(&["1", "2"]);
    bench.rosters();
    let status = Status::Serving(Member { id: "b".to_owned(), inst: 1 });
    bench.membership.note(News { address: "127.0.0.1:2".to_owned(), number, status }, bench.now);
    assert_eq!(bench.membership.seats["127.0.0.1:2"].status, Status::Unknown);
}

#[tokio::test]
async fn a_stranger_is_counted_and_no_member() {
    let mut bench = Bench::pair();
    bench.list(&["1", "2", "3"]);
    bench.hear(3, Status::Foreign);
    assert!(bench.rosters().is_empty());
    let counts = &bench.membership.config.counts;
    assert_eq!((counts.foreign.load(Relaxed), counts.candidates.load(Relaxed)), (1, 3));
}
