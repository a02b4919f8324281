//! Expected verdicts: a file that people write, or have written, and that a pipeline of tests compares with.

use ringtail_crds::validate::document::{self, Node};
use ringtail_engine::policy::Policy;
use serde::Serialize;

use super::judge::Judged;
use super::show::verdict;

/// Which trace is meant.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Meant {
    Id(String),
    Index(usize),
    Name(String),
}

/// What is expected of one trace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Expected {
    line: u64,
    meant: Meant,
    keep: bool,
    policy: Option<String>,
}

/// A verdict as it is written down.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Written<'a> {
    trace_id: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    name: &'a str,
    keep: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    policy: Option<&'a str>,
}

/// A file of verdicts.
#[derive(Serialize)]
struct File<'a> {
    traces: Vec<Written<'a>>,
}

/// Reads expectations.
pub(super) fn read(text: &str) -> Result<Vec<Expected>, String> {
    let documents = document::read_plainly(text).map_err(|problem| problem.to_string())?;
    let [root] = documents.as_slice() else {
        return Err("must be one document with a list `traces`".to_owned());
    };
    let list = field(root, "traces").and_then(|(_, list)| list.items());
    let list = list.ok_or_else(|| at(root.line(), "must have a list `traces`"))?;
    list.iter().map(entry).collect()
}

fn entry(node: &Node) -> Result<Expected, String> {
    let line = node.line();
    for (name, line, _) in node.fields().ok_or_else(|| at(line, "must be a map"))? {
        if !["traceId", "index", "name", "keep", "policy"].contains(&name) {
            let known = "traceId, index, name, keep and policy are known";
            return Err(at(line, &format!("{name} is no field of an expected verdict: {known}")));
        }
    }
    let text = |name: &str| {
        let value = field(node, name)?.1.scalar()?;
        Some(value.as_str().map_or_else(|| value.to_string(), str::to_owned))
    };
    let index = text("index").map(|index| index.parse::<usize>());
    let meant = match (text("traceId"), index, text("name")) {
        (Some(id), _, _) => Meant::Id(id.to_ascii_lowercase()),
        (None, Some(Ok(index)), _) if index > 0 => Meant::Index(index),
        (None, Some(_), _) => return Err(at(line, "index must be a number from 1")),
        (None, None, Some(name)) => Meant::Name(name),
        (None, None, None) => return Err(at(line, "needs a traceId, an index or a name")),
    };
    let keep = match text("keep").as_deref() {
        Some("true") => true,
        Some("false") => false,
        _ => return Err(at(line, "needs keep: true or keep: false")),
    };
    let policy = text("policy").filter(|policy| policy != "null");
    Ok(Expected { line, meant, keep, policy })
}

fn field<'a>(node: &'a Node, name: &str) -> Option<(u64, &'a Node)> {
    let mut fields = node.fields()?;
    fields.find(|(key, _, _)| *key == name).map(|(_, line, node)| (line, node))
}

fn at(line: u64, why: &str) -> String {
    format!("line {line}: {why}")
}

/// What is not as expected, a line each.
pub(super) fn compare(
    policies: &[Policy],
    judged: &[Judged],
    expected: &[Expected],
) -> Vec<String> {
    expected.iter().flat_map(|expected| differences(policies, judged, expected)).collect()
}

fn differences(policies: &[Policy], judged: &[Judged], expected: &Expected) -> Vec<String> {
    let found: Vec<&Judged> = judged.iter().filter(|trace| expected.meant.is(trace)).collect();
    let line = expected.line;
    if found.is_empty() {
        return vec![at(line, &format!("{} is not recorded", expected.meant))];
    }
    let differs = |trace: &&Judged| {
        let policy = trace.policy.and_then(|place| policies.get(place)).map(|policy| &policy.name);
        let by = expected.policy.is_none() || expected.policy.as_ref() == policy;
        trace.keep != expected.keep || !by
    };
    let told = |trace: &Judged| {
        let wanted = if expected.keep { "kept" } else { "dropped" };
        let by = expected.policy.as_ref().map(|name| format!(" by {name}")).unwrap_or_default();
        let name = if trace.name.is_empty() { String::new() } else { format!(" ({})", trace.name) };
        let is = verdict(policies, trace);
        at(line, &format!("trace {}{name}: expected to be {wanted}{by}, and is {is}", trace.id))
    };
    found.into_iter().filter(differs).map(told).collect()
}

/// The present verdicts as a file.
pub(super) fn write(policies: &[Policy], judged: &[Judged]) -> Result<String, String> {
    let written = |trace: &'_ Judged| {
        trace.policy.and_then(|place| policies.get(place)).map(|policy| policy.name.clone())
    };
    let names: Vec<Option<String>> = judged.iter().map(written).collect();
    let traces = judged.iter().zip(&names).map(|(trace, policy)| Written {
        trace_id: &trace.id,
        name: &trace.name,
        keep: trace.keep,
        policy: policy.as_deref(),
    });
    serde_saphyr::to_string(&File { traces: traces.collect() }).map_err(|error| error.to_string())
}

// === impl Meant ===

impl Meant {
    fn is(&self, trace: &Judged) -> bool {
        match self {
            Self::Id(id) => trace.id == *id,
            Self::Index(index) => trace.index == *index,
            Self::Name(name) => trace.name == *name,
        }
    }
}

impl std::fmt::Display for Meant {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Id(id) => write!(f, "the trace {id}"),
            Self::Index(index) => write!(f, "the trace number {index}"),
            Self::Name(name) => write!(f, "a trace named {name}"),
        }
    }
}
