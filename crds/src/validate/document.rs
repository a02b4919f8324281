//! YAML text as a tree that knows its lines.

use std::fmt;

use serde::{
    Deserialize, Deserializer,
    de::{MapAccess, SeqAccess, Visitor},
};
use serde_json::{Number, Value};
use serde_saphyr::{NonFiniteFloatPolicy, Options, Spanned, UserMessageFormatter};

use crate::{
    path::{Path, Step},
    problem::Problem,
};

/// More than the API server stores of one resource (1.5 MiB), so a longer text is no manifest.
const TEXT_BYTES_MAX: usize = 2 << 20;
/// A manifest nests 9 deep; the rest is room for resources of other kinds in the same file.
const DEPTH_MAX: usize = 64;

/// A value with the line where it begins.
#[derive(Debug)]
pub struct Node {
    line: u64,
    content: Content,
}

#[derive(Debug)]
enum Content {
    Scalar(Value),
    List(Vec<Node>),
    Map(Vec<Entry>),
}

#[derive(Debug)]
struct Entry {
    key: String,
    line: u64,
    node: Node,
}

/// The documents of a text, in order; empty ones do not count.
///
/// # Errors
/// When it is not YAML, or longer than any manifest.
pub fn read(yaml: &str) -> Result<Vec<Node>, Problem> {
    read_with(yaml, options())
}

/// The same for texts of programs that read YAML 1.2, where only `true` and `false` are no texts: an
/// attribute may be called `n`.
///
/// # Errors
/// As [`read`].
pub fn read_plainly(yaml: &str) -> Result<Vec<Node>, Problem> {
    let mut options = options();
    options.strict_booleans = true;
    read_with(yaml, options)
}

fn read_with(yaml: &str, options: Options) -> Result<Vec<Node>, Problem> {
    if yaml.len() > TEXT_BYTES_MAX {
        let message =
            format!("is {} bytes long, and at most {TEXT_BYTES_MAX} are read", yaml.len());
        return Err(Problem { path: String::new(), message, line: None });
    }
    let nodes: Vec<Node> =
        serde_saphyr::from_multiple_with_options(yaml, options).map_err(syntax_problem)?;
    Ok(nodes
        .into_iter()
        .filter(|node| !matches!(node.content, Content::Scalar(Value::Null)))
        .collect())
}

fn options() -> Options {
    let budget = serde_saphyr::budget! { max_depth: DEPTH_MAX };
    serde_saphyr::options! {
        budget: budget,
        with_snippet: false,
        non_finite_float_policy: NonFiniteFloatPolicy::AsString,
    }
}

fn syntax_problem(error: serde_saphyr::Error) -> Problem {
    let told = error.without_snippet().render_with_formatter(&UserMessageFormatter);
    let message = format!("is not valid YAML: {told}");
    Problem { path: String::new(), message, line: error.location().map(|at| at.line()) }
}

impl Node {
    /// The line where it begins, counted from 1; 0 when nobody knows.
    pub fn line(&self) -> u64 {
        self.line
    }

    /// Keys, their lines and what they hold, in the order of the text; `None` when this is no map.
    pub fn fields(&self) -> Option<impl Iterator<Item = (&str, u64, &Node)>> {
        let Content::Map(entries) = &self.content else { return None };
        Some(entries.iter().map(|entry| (entry.key.as_str(), entry.line, &entry.node)))
    }

    /// What a list holds; `None` when this is none.
    pub fn items(&self) -> Option<&[Self]> {
        let Content::List(nodes) = &self.content else { return None };
        Some(nodes)
    }

    /// A single value; `None` when this is a map or a list.
    pub fn scalar(&self) -> Option<&Value> {
        let Content::Scalar(value) = &self.content else { return None };
        Some(value)
    }

    /// The value without its lines and without nulls in maps: a field without a value is as good as absent,
    /// for the API server too.
    pub fn to_value(&self) -> Value {
        match &self.content {
            Content::Scalar(value) => value.clone(),
            Content::List(nodes) => nodes.iter().map(Self::to_value).collect(),
            Content::Map(entries) => {
                let pairs = entries.iter().map(|entry| (entry.key.clone(), entry.node.to_value()));
                Value::Object(pairs.filter(|(_, value)| !value.is_null()).collect())
            }
        }
    }

    /// The line of the node at `path`, or of the nearest one above it that exists.
    pub(crate) fn line_of(&self, path: &Path) -> Option<u64> {
        let mut node = self;
        let mut line = self.line;
        for step in path.steps() {
            match (&node.content, step) {
                (Content::Map(entries), Step::Key(key)) => {
                    let Some(entry) = entries.iter().find(|entry| entry.key == *key) else {
                        break;
                    };
                    (node, line) = (&entry.node, entry.line);
                }
                (Content::List(nodes), Step::Index(index)) => {
                    let Some(item) = nodes.get(*index) else { break };
                    (node, line) = (item, item.line);
                }
                _ => break,
            }
        }
        (line > 0).then_some(line)
    }
}

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let spanned = Spanned::<Content>::deserialize(deserializer)?;
        Ok(Self { line: spanned.referenced.line(), content: spanned.value })
    }
}

impl<'de> Deserialize<'de> for Content {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ContentVisitor)
    }
}

struct ContentVisitor;

impl<'de> Visitor<'de> for ContentVisitor {
    type Value = Content;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value, a list or a map")
    }

    fn visit_unit<E>(self) -> Result<Content, E> {
        Ok(Content::Scalar(Value::Null))
    }

    fn visit_bool<E>(self, value: bool) -> Result<Content, E> {
        Ok(Content::Scalar(value.into()))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Content, E> {
        Ok(Content::Scalar(value.into()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Content, E> {
        Ok(Content::Scalar(value.into()))
    }

    // Whole numbers beyond 64 bits fit no field; as text they are refused with their digits shown.
    fn visit_i128<E>(self, value: i128) -> Result<Content, E> {
        Ok(Content::Scalar(value.to_string().into()))
    }

    fn visit_u128<E>(self, value: u128) -> Result<Content, E> {
        Ok(Content::Scalar(value.to_string().into()))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Content, E> {
        let number = Number::from_f64(value).map(Value::Number);
        Ok(Content::Scalar(number.unwrap_or_else(|| value.to_string().into())))
    }

    fn visit_str<E>(self, value: &str) -> Result<Content, E> {
        Ok(Content::Scalar(value.into()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Content, A::Error> {
        let mut nodes = Vec::new();
        while let Some(node) = list.next_element()? {
            nodes.push(node);
        }
        Ok(Content::List(nodes))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Content, A::Error> {
        let mut entries = Vec::new();
        while let Some((key, node)) = map.next_entry::<Spanned<String>, Node>()? {
            entries.push(Entry { key: key.value, line: key.referenced.line(), node });
        }
        Ok(Content::Map(entries))
    }
}
