//! The Collector's configurations: files, components, and options that know their line.

use std::collections::BTreeMap;

use ringtail_crds::validate::document::{self, Node};
use serde_json::Value;

use super::environment::Environment;
use super::report::{Place, Report};

/// A file that was read.
#[derive(Debug)]
pub(super) struct File {
    pub(super) name: String,
    pub(super) order: usize,
    root: Node,
}

/// One option: a value and its place.
#[derive(Clone, Debug)]
pub(super) struct Entry<'a> {
    pub(super) node: &'a Node,
    pub(super) place: Place,
}

/// The options of a component that nobody has looked at yet.
#[derive(Debug)]
pub(super) struct Fields<'a> {
    pub(super) place: Place,
    left: Vec<(&'a str, Entry<'a>)>,
}

/// Reads options and tells what is wrong with them.
#[derive(Debug)]
pub(super) struct Reader<'r> {
    pub(super) report: &'r mut Report,
    pub(super) environment: &'r Environment,
}

// === impl File ===

impl File {
    /// Reads a configuration, the one inside an OpenTelemetryCollector resource, or those that a ConfigMap
    /// holds.
    pub(super) fn parse(name: &str, order: usize, text: &str) -> Result<Vec<Self>, String> {
        let root = document(name, text)?;
        if !is_config_map(&root) {
            return Ok(vec![Self { name: name.to_owned(), order, root }]);
        }
        let mut files = Vec::new();
        let data = root.fields().into_iter().flatten().find(|(key, _, _)| *key == "data");
        for (key, line, node) in data.and_then(|(.., data)| data.fields()).into_iter().flatten() {
            let Some(text) = node.scalar().and_then(Value::as_str) else { continue };
            // A block's text begins in the line after its key; so its lines are those of the file.
            let lines = "\n".repeat(usize::try_from(line).unwrap_or_default());
            // Other files may lie beside it, which need not be YAML.
            let Ok(root) = document(name, &(lines + text)) else { continue };
            if root.fields().is_some_and(|mut fields| fields.any(|(field, ..)| field == "service"))
            {
                files.push(Self { name: format!("{name}[{key}]"), order, root });
            }
        }
        match files.is_empty() {
            true => Err(format!(
                "{name}: is a ConfigMap without a Collector's configuration in its data"
            )),
            false => Ok(files),
        }
    }

    /// The configuration: the file itself, or `spec.config` of a resource of the Collector's operator.
    pub(super) fn entry(&self) -> Entry<'_> {
        let place = Place {
            order: self.order,
            line: self.root.line(),
            file: self.name.clone(),
            path: String::new(),
        };
        let whole = Entry { node: &self.root, place };
        let inner = whole.field("spec").and_then(|spec| spec.field("config"));
        let is_config = |entry: &Entry<'_>| entry.field("service").is_some();
        inner.filter(is_config).unwrap_or(whole)
    }
}

/// The one document of a text.
fn document(name: &str, text: &str) -> Result<Node, String> {
    let documents = document::read_plainly(text).map_err(|problem| match problem.line {
        Some(line) => format!("{name}:{line}: {}", problem.message),
        None => format!("{name}: {}", problem.message),
    })?;
    let mut roots = documents.into_iter();
    match (roots.next(), roots.next()) {
        (Some(root), None) => Ok(root),
        (None, _) => Err(format!("{name}: is empty")),
        (Some(_), Some(second)) => Err(format!(
            "{name}:{}: a second document begins here: give each configuration a file of its own",
            second.line()
        )),
    }
}

fn is_config_map(root: &Node) -> bool {
    let mut fields = root.fields().into_iter().flatten();
    fields.any(|(key, _, node)| {
        key == "kind" && node.scalar().and_then(Value::as_str) == Some("ConfigMap")
    })
}

// === impl Entry ===

impl<'a> Entry<'a> {
    /// A field of this map, for looking only.
    pub(super) fn field(&self, name: &str) -> Option<Self> {
        let mut fields = self.node.fields()?;
        let (_, line, node) = fields.find(|(key, _, _)| *key == name)?;
        Some(Self { node, place: self.below(name, line) })
    }

    /// All fields of this map.
    pub(super) fn fields(&self) -> Vec<(&'a str, Self)> {
        let fields = self.node.fields().into_iter().flatten();
        let entry = |(key, line, node)| (key, Self { node, place: self.below(key, line) });
        fields.map(entry).collect()
    }

    /// What a list holds.
    pub(super) fn items(&self) -> Vec<Self> {
        let items = self.node.items().unwrap_or_default().iter().enumerate();
        let entry = |(index, node): (usize, &'a Node)| {
            let path = format!("{}[{index}]", self.place.path);
            Self { node, place: Place { line: node.line(), path, ..self.place.clone() } }
        };
        items.map(entry).collect()
    }

    /// Texts of a list, as they are written.
    pub(super) fn words(&self) -> Vec<(String, Place)> {
        let word = |item: Self| Some((item.raw()?, item.place));
        self.items().into_iter().filter_map(word).collect()
    }

    /// A single value as it is written; `None` for nothing, a map or a list.
    pub(super) fn raw(&self) -> Option<String> {
        match self.node.scalar()? {
            Value::Null => None,
            Value::String(text) => Some(text.clone()),
            other => Some(other.to_string()),
        }
    }

    fn is_nothing(&self) -> bool {
        self.node.scalar().is_some_and(Value::is_null)
    }

    fn below(&self, name: &str, line: u64) -> Place {
        let dot = if self.place.path.is_empty() { "" } else { "." };
        let path = format!("{}{dot}{name}", self.place.path);
        Place { line, path, ..self.place.clone() }
    }
}

// === impl Fields ===

impl<'a> Fields<'a> {
    /// The options of a component; nothing at all is no options.
    pub(super) fn of(entry: &Entry<'a>, report: &mut Report) -> Self {
        if entry.node.fields().is_none() && !entry.is_nothing() {
            report.error(&entry.place, "must be a map of options");
        }
        Self { place: entry.place.clone(), left: entry.fields() }
    }

    /// No options at all.
    pub(super) fn empty(place: &Place) -> Self {
        Self { place: place.clone(), left: Vec::new() }
    }

    /// Takes an option that has a value.
    pub(super) fn take(&mut self, name: &str) -> Option<Entry<'a>> {
        let at = self.left.iter().position(|(key, _)| *key == name)?;
        let (_, entry) = self.left.remove(at);
        Some(entry).filter(|entry| !entry.is_nothing())
    }

    /// Takes an option that may be there without a value, as `grpc:` is.
    pub(super) fn take_bare(&mut self, name: &str) -> Option<Entry<'a>> {
        let at = self.left.iter().position(|(key, _)| *key == name)?;
        Some(self.left.remove(at).1)
    }

    /// Takes an option that Ringtail needs no word for.
    pub(super) fn built_in(&mut self, name: &str, report: &mut Report, why: &str) {
        if let Some(entry) = self.take(name) {
            report.built_in(&entry.place, why);
        }
    }

    /// Takes an option that nothing is like, and says why.
    pub(super) fn lost(&mut self, name: &str, report: &mut Report, why: &str) {
        if let Some(entry) = self.take_bare(name) {
            report.lost(&entry.place, why);
        }
    }

    /// Says of everything that is left that nothing is like it.
    pub(super) fn finish(self, report: &mut Report) {
        for (name, entry) in self.left {
            report.lost(&entry.place, format!("Ringtail has no option like {name}"));
        }
    }
}

// === impl Reader ===

impl Reader<'_> {
    /// A text with its variables in place.
    pub(super) fn text(&mut self, entry: &Entry<'_>) -> Option<String> {
        let Some(raw) = entry.raw() else {
            self.report.error(&entry.place, "must be a single value");
            return None;
        };
        match self.environment.expand(&raw) {
            Ok(text) => Some(text),
            Err(problem) => {
                self.report.error(&entry.place, problem);
                None
            }
        }
    }

    pub(super) fn texts(&mut self, entry: &Entry<'_>) -> Vec<String> {
        let items = entry.items();
        if items.is_empty() && entry.node.items().is_none() {
            // The Collector takes a single value for a list of one.
            return self.text(entry).into_iter().collect();
        }
        items.iter().filter_map(|item| self.text(item)).collect()
    }

    pub(super) fn number(&mut self, entry: &Entry<'_>) -> Option<i64> {
        self.parsed(entry, "a whole number", |text| text.parse().ok())
    }

    pub(super) fn real(&mut self, entry: &Entry<'_>) -> Option<f64> {
        let finite = |text: &str| text.parse().ok().filter(|number: &f64| number.is_finite());
        self.parsed(entry, "a number", finite)
    }

    pub(super) fn truth(&mut self, entry: &Entry<'_>) -> Option<bool> {
        self.parsed(entry, "true or false", |text| text.parse().ok())
    }

    /// A duration in microseconds, as Go writes them.
    pub(super) fn micros(&mut self, entry: &Entry<'_>) -> Option<u64> {
        self.parsed(entry, "a duration such as 30s, 500ms or 1m30s", go_duration)
    }

    /// Texts by name, each with its place.
    pub(super) fn table(&mut self, entry: &Entry<'_>) -> BTreeMap<String, (String, Place)> {
        let mut table = BTreeMap::new();
        for (name, value) in entry.fields() {
            if let Some(raw) = value.raw() {
                table.insert(name.to_owned(), (raw, value.place));
            }
        }
        table
    }

    fn parsed<T>(
        &mut self,
        entry: &Entry<'_>,
        wanted: &str,
        parse: impl Fn(&str) -> Option<T>,
    ) -> Option<T> {
        let text = self.text(entry)?;
        let value = parse(text.trim());
        if value.is_none() {
            self.report.error(&entry.place, format!("is {text:?} and must be {wanted}"));
        }
        value
    }
}

/// Microseconds of a duration such as `1m30s`, `1.5s` or `0`; a number alone is nanoseconds.
fn go_duration(text: &str) -> Option<u64> {
    const UNITS: [(&str, f64); 7] =
        [("ns", 1e-3), ("us", 1.0), ("µs", 1.0), ("ms", 1e3), ("s", 1e6), ("m", 6e7), ("h", 3.6e9)];
    if let Ok(nanos) = text.parse::<u64>() {
        return Some(nanos / 1_000);
    }
    let (mut rest, mut total) = (text, 0.0);
    while !rest.is_empty() {
        let (count, tail) = rest.split_at(rest.find(|c: char| !c.is_ascii_digit() && c != '.')?);
        let end = tail.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(tail.len());
        let (unit, tail) = tail.split_at(end);
        let micros = UNITS.iter().find(|(name, _)| *name == unit)?.1;
        total += count.parse::<f64>().ok()? * micros;
        rest = tail;
    }
    (!text.is_empty() && total < 1e15).then_some(total.round() as u64)
}
