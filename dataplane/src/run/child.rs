//! One child process: its lines come in as events, orders go out as signals, and it cannot outlive us.

use std::io;
use std::net::SocketAddr;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncWriteExt, BufReader};
use tokio::process::{Child, ChildStdin, Command};
use tokio::sync::mpsc::{self, Receiver, Sender};
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::plan::Spec;
use crate::role::stop::PEERS_LINE;
use crate::stats::Report;

/// A process is told to stop once and to die once, and where the others are as often as somebody comes or
/// goes; one that is frozen reads none of it, and its pipe takes 64 KiB.
const ORDERS_MAX: usize = 64;
/// A pipe takes a line at once while there is room in it.
const TELL_WITHIN: Duration = Duration::from_millis(100);
/// What our binary reads its log filter from.
const LOG_VARIABLE: &str = "RINGTAIL_LOG";
/// What children log when the user does not say: a screen full of news is no news.
const LOG_LEVEL: &str = "warn";

/// What a child did.
#[derive(Debug)]
pub struct Event {
    /// Its number in the fleet.
    pub child: usize,
    /// What happened.
    pub news: News,
}

/// What can happen to a child.
#[derive(Debug)]
pub enum News {
    /// A line of its protocol.
    Report(Report),
    /// Any other line.
    Said(String),
    /// It is gone; the last event of a child.
    Ended(io::Result<ExitStatus>),
}

/// What a child can be told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Order {
    /// Where the gateways are.
    Peers(Vec<SocketAddr>),
    /// SIGTERM: drain, report, exit. Also wakes one that is frozen.
    Stop,
    /// SIGKILL.
    Kill,
    /// SIGSTOP: it stands still, its sockets stay open.
    Freeze,
    /// SIGCONT.
    Thaw,
}

/// Starts a child; a task in `tasks` attends it and kills it when it is dropped.
///
/// The child has a process group of its own, so that Ctrl-C reaches only us and we stop the tiers in order,
/// and a pipe as stdin, whose end tells it that we are gone, however we went.
pub fn spawn(
    child: usize,
    spec: &Spec,
    events: Sender<Event>,
    tasks: &mut JoinSet<()>,
) -> io::Result<Sender<Order>> {
    let mut command = Command::new(&spec.program);
    command.args(&spec.arguments);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command.process_group(0).kill_on_drop(true);
    // Its stderr is a pipe, and colours would end in logs and in the middle of the table.
    command.env("NO_COLOR", "1");
    if std::env::var_os(LOG_VARIABLE).is_none() {
        command.env(LOG_VARIABLE, LOG_LEVEL);
    }
    let process = command.spawn()?;
    let (orders, obeyed) = mpsc::channel(ORDERS_MAX);
    tasks.spawn(attend(child, process, obeyed, events));
    Ok(orders)
}

async fn attend(child: usize, mut process: Child, orders: Receiver<Order>, events: Sender<Event>) {
    let (stdout, stderr) = (process.stdout.take(), process.stderr.take());
    let protocol = |line: String| match serde_json::from_str(&line) {
        Ok(report) => News::Report(report),
        Err(_) => News::Said(line),
    };
    let ((), (), status) = tokio::join!(
        tell_lines(child, stdout, protocol, &events),
        tell_lines(child, stderr, News::Said, &events),
        obey(&mut process, orders),
    );
    // Nobody listens only when the fleet itself is being dropped.
    let _ = events.send(Event { child, news: News::Ended(status) }).await;
}

async fn tell_lines(
    child: usize,
    from: Option<impl AsyncRead + Unpin>,
    read: impl Fn(String) -> News,
    events: &Sender<Event>,
) {
    let Some(from) = from else { return };
    let mut lines = BufReader::new(from).lines();
    while let Ok(Some(line)) = lines.next_line().await {
        if events.send(Event { child, news: read(line) }).await.is_err() {
            return;
        }
    }
}

async fn obey(process: &mut Child, mut orders: Receiver<Order>) -> io::Result<ExitStatus> {
    // `wait` would close stdin at once, and the child would take that for our end.
    let mut stdin = process.stdin.take();
    loop {
        tokio::select! {
            status = process.wait() => return status,
            Some(order) = orders.recv() => match order {
                Order::Peers(addresses) => tell(stdin.as_mut(), &addresses).await,
                Order::Stop => {
                    signal(process, Signal::TERM)?;
                    signal(process, Signal::CONT)?;
                }
                Order::Kill => signal(process, Signal::KILL)?,
                Order::Freeze => signal(process, Signal::STOP)?,
                Order::Thaw => signal(process, Signal::CONT)?,
            },
        }
    }
}

async fn tell(stdin: Option<&mut ChildStdin>, addresses: &[SocketAddr]) {
    let addresses: Vec<String> = addresses.iter().map(SocketAddr::to_string).collect();
    let line = format!("{PEERS_LINE} {}\n", addresses.join(" "));
    if let Some(stdin) = stdin {
        // A child that does not read any more is about to say why it ended; one that is frozen would keep us
        // from telling it to end once the pipe is full.
        let _ = timeout(TELL_WITHIN, stdin.write_all(line.as_bytes())).await;
    }
}

fn signal(process: &Child, signal: Signal) -> io::Result<()> {
    // Without an id it has been waited for already, and its number may be somebody else's.
    let raw = process.id().and_then(|id| i32::try_from(id).ok());
    match raw.and_then(Pid::from_raw) {
        Some(pid) => Ok(kill_process(pid, signal)?),
        None => Ok(()),
    }
}
