//! When others are greeted.

use super::*;
use crate::ownership::timers::HELLO;

impl Bench {
    /// Who is greeted by a message of its own until then, as often as that is, while nobody says anything.
    fn greeted(&mut self, millis: Millis) -> Vec<String> {
        self.out.clear();
        self.pass(millis);
        let greeted = self.out.drain(..).filter_map(|action| match action {
            Action::Send { to, message: Message::Hello(_), .. } => Some(to.to_string()),
            _ => None,
        });
        greeted.collect()
    }

    /// A greeting goes along with something that is sent now, if one does.
    fn along(&mut self, to: &str) -> Option<Asked> {
        self.out.clear();
        self.own.greet_along(&to.into(), self.now, &mut self.out);
        match self.out.pop() {
            Some(Action::Send { to: name, message: Message::Hello(hello), .. }) => {
                assert_eq!(&*name, to);
                Some(hello.asked)
            }
            _ => None,
        }
    }
}

/// A gateway that has greeted both others just now.
fn greeting() -> Bench {
    let mut bench = Bench::serving(Rules::ALL, &["a", "c"]);
    while bench.greeted(TICK).is_empty() {}
    bench
}

#[test]
fn a_greeting_that_goes_along_is_as_good_as_one_by_itself() {
    let mut bench = greeting();
    assert_eq!(bench.along("a"), None, "it was greeted just now");
    assert_eq!(bench.greeted(HELLO - TICK), Vec::<String>::new());
    // With one of them there is traffic just before each turn.
    for _ in 0..10 {
        assert!(bench.along("a").is_some());
        assert_eq!(bench.greeted(HELLO), ["c"]);
    }
    assert_eq!(bench.along("a"), Some(Asked { epoch: bench.own.stand().epoch, at: bench.now }));
    assert!(bench.along("c").is_some());
    assert_eq!(bench.greeted(HELLO), Vec::<String>::new(), "the next ones may go along as well");
    assert_eq!(bench.greeted(TICK), ["a", "c"], "but nobody waits longer for it");
    assert_eq!(bench.greeted(4 * HELLO), ["a", "c"].repeat(4));
}

#[test]
fn after_a_failure_a_greeting_goes_by_itself() {
    let mut bench = greeting();
    bench.fail("a", Req(1));
    assert_eq!(bench.greeted(TICK), Vec::<String>::new(), "it was greeted by itself before");
    bench.pass(TICK);
    assert!(bench.along("a").is_some());
    bench.fail("a", Req(1));
    assert!(bench.greeted(TICK).contains(&"a".to_owned()));
}

#[test]
fn who_is_no_member_is_not_greeted_along() {
    let mut bench = Bench::serving(Rules::ALL, &["a", "c"]);
    bench.pass(HELLO);
    assert_eq!(bench.along("x"), None);
    bench.facts[1].state = State::Left;
    bench.greet("a", &[]);
    assert_eq!(bench.along("a"), None);
    assert!(bench.along("c").is_none(), "a change of the view greets at once");
}
