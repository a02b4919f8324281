//! The house rules that a machine can keep: sizes, layers, lints and words, over every file here.
//!
//! A rule is a function from one file to its findings. Each has a sample below that it must refuse, so that
//! no rule can fall silent unnoticed, and what is exempt stands in one list with its reason.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test may stop at what it cannot read"
)]

use std::collections::BTreeSet;
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

/// More than about eight screens of one noun are two nouns.
const FILE_LINES_MAX: usize = 500;
/// A function that does not fit on one tall screen hides its control flow.
const FUNCTION_LINES_MAX: usize = 70;
/// A `main.rs` only parses, builds and starts.
const MAIN_LINES_MAX: usize = 120;
/// Two editors side by side on a laptop, and a review in a browser.
const LINE_CHARS_MAX: usize = 110;

/// `(rule, path, reason)`: everything that may break a rule, and why.
const EXEMPT: &[(&str, &str, &str)] = &[];

/// Which of our own crates each layer may import; crates that are not listed may import anything.
const LAYERS: &[(&str, &[&str])] = &[
    ("dataplane/engine/Cargo.toml", &[]),
    ("crds/Cargo.toml", &["ringtail-engine"]),
    ("dataplane/Cargo.toml", &["ringtail-crds", "ringtail-engine"]),
    ("operator/Cargo.toml", &["ringtail-crds", "ringtail-engine"]),
];

/// What the engine must not know: runtimes, sockets, clocks, files, threads, the cluster.
const NOT_IN_ENGINE: &[&str] = &[
    "tokio",
    "tonic",
    "hyper",
    "kube",
    "std::net",
    "std::fs",
    "std::process",
    "std::thread",
    "Instant",
    "SystemTime",
];

const RULES: &[(&str, Rule)] = &[
    ("header", header),
    ("file length", file_length),
    ("function length", function_length),
    ("line length", line_length),
    ("file name", file_name),
    ("layers", layers),
    ("pure engine", pure_engine),
    ("inherited lints", inherited_lints),
    ("expect, not allow", no_allow),
    ("unfinished work", unfinished),
    ("machine paths", machine_paths),
];

type Rule = fn(&Source) -> Vec<Finding>;

/// One text file, by its path from the root of the repository.
struct Source {
    path: String,
    text: String,
    /// The text with comments and literals blanked out, line for line; empty unless it is Rust.
    code: String,
}

/// A line that breaks a rule.
#[derive(Debug, PartialEq, Eq)]
struct Finding {
    line: usize,
    message: String,
}

// === The test over the repository ===

#[test]
fn repository_is_tidy() {
    let sources = repository();
    assert!(sources.len() > 10, "the repository was not found: {} files", sources.len());
    let mut broken = Vec::new();
    let mut unused: BTreeSet<_> = EXEMPT.iter().map(|(rule, path, _)| (*rule, *path)).collect();
    for source in &sources {
        for (name, rule) in RULES {
            let findings = rule(source);
            let exempt = EXEMPT.iter().any(|(r, p, _)| r == name && *p == source.path);
            if exempt && !findings.is_empty() {
                unused.remove(&(*name, source.path.as_str()));
                continue;
            }
            broken.extend(findings.iter().map(|f| format!("{}:{f} ({name})", source.path)));
        }
    }
    broken.extend(
        unused.iter().map(|(rule, path)| format!("{path}: exemption from '{rule}' is not needed")),
    );
    assert!(broken.is_empty(), "{} findings:\n{}", broken.len(), broken.join("\n"));
}

// === Rules ===

fn header(source: &Source) -> Vec<Finding> {
    let first = source.text.lines().next().unwrap_or_default();
    let told = first.strip_prefix("//! ").is_some_and(|sentence| sentence.len() > 10);
    finding_if(
        source.is_rust() && !source.is_generated() && !told,
        1,
        "open the file with `//!` and a sentence that says what it is",
    )
}

fn file_length(source: &Source) -> Vec<Finding> {
    if !source.is_rust() || source.is_test() || source.is_generated() {
        return Vec::new();
    }
    let max = if source.path.ends_with("main.rs") { MAIN_LINES_MAX } else { FILE_LINES_MAX };
    let lines = product_lines(&source.text);
    finding_if(lines > max, max + 1, &format!("{lines} lines without tests, at most {max}"))
}

fn function_length(source: &Source) -> Vec<Finding> {
    // A test that is one long table of cases is as it should be.
    let product = if source.is_test() { 0 } else { product_lines(&source.text) };
    let lines: Vec<&str> = source.code.lines().take(product).collect();
    let mut findings = Vec::new();
    for (start, line) in lines.iter().enumerate().filter(|(_, line)| opens_function(line)) {
        let length = function_lines(&lines[start..]);
        let name = line.trim();
        let message = format!("function of {length} lines, at most {FUNCTION_LINES_MAX}: {name}");
        findings.extend(finding_if(length > FUNCTION_LINES_MAX, start + 1, &message));
    }
    findings
}

fn line_length(source: &Source) -> Vec<Finding> {
    if !source.is_rust() {
        return Vec::new();
    }
    source.lines_where(|line| {
        let chars = line.chars().count();
        (chars > LINE_CHARS_MAX).then(|| format!("{chars} characters, at most {LINE_CHARS_MAX}"))
    })
}

fn file_name(source: &Source) -> Vec<Finding> {
    let vague = ["util", "utils", "helper", "helpers", "common", "misc"];
    let found = source.path.split(['/', '.']).find(|part| vague.contains(part));
    let message = found.map(|part| format!("'{part}' names no noun: say what the file holds"));
    finding_if(message.is_some(), 1, &message.unwrap_or_default())
}

fn layers(source: &Source) -> Vec<Finding> {
    let Some((_, allowed)) = LAYERS.iter().find(|(manifest, _)| *manifest == source.path) else {
        return Vec::new();
    };
    source.lines_where(|line| {
        let name = line.split(['.', ' ', '=']).next().unwrap_or_default();
        let ours = name == "ringtail" || name.starts_with("ringtail-");
        (ours && !allowed.contains(&name)).then(|| format!("this layer may not import {name}"))
    })
}

fn pure_engine(source: &Source) -> Vec<Finding> {
    if !source.path.starts_with("dataplane/engine/") || !source.is_rust() {
        return Vec::new();
    }
    // `use std::{net, ..}` would slip past the paths below; nobody writes it, and rustfmt keeps it visible.
    let mut findings = Vec::new();
    for (number, line) in source.code.lines().enumerate() {
        // The generated messages are called so, and have nothing of tonic in them.
        let line = line.replace("opentelemetry_proto::tonic::", "");
        for word in NOT_IN_ENGINE.iter().filter(|word| has_word(&line, word)) {
            let message = format!("the engine does not know `{word}`");
            findings.extend(finding_if(true, number + 1, &message));
        }
    }
    findings
}

fn inherited_lints(source: &Source) -> Vec<Finding> {
    let package = source.path.ends_with("Cargo.toml") && source.text.contains("[package]");
    let inherits = source.text.contains("[lints]\nworkspace = true");
    finding_if(package && !inherits, 1, "inherit the lints: `[lints]` and `workspace = true`")
}

fn no_allow(source: &Source) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (number, line) in source.code.lines().enumerate() {
        let allows = line.contains("#[allow(") || line.contains("#![allow(");
        findings.extend(finding_if(allows, number + 1, "write `#[expect(.., reason = \"..\")]`"));
    }
    findings
}

fn unfinished(source: &Source) -> Vec<Finding> {
    // In two halves, so that this file does not find itself.
    let words =
        [concat!("TO", "DO"), concat!("FIX", "ME"), concat!("HA", "CK"), concat!("XX", "X")];
    source.lines_where(|line| {
        let word = words.into_iter().find(|word| has_word(line, word))?;
        Some(format!("{word}: finish it, or open an issue"))
    })
}

fn machine_paths(source: &Source) -> Vec<Finding> {
    let places = [
        concat!("/wo", "rk/"),
        concat!("/ro", "ot/"),
        concat!("/ho", "me/"),
        concat!("../sha", "red"),
    ];
    source.lines_where(|line| {
        let place = places.into_iter().find(|place| line.contains(place))?;
        Some(format!("'{place}' exists on one machine only"))
    })
}

// === impl Source ===

impl Source {
    fn new(path: &str, text: &str) -> Self {
        let code = if path.ends_with(".rs") { blank_literals(text) } else { String::new() };
        Self { path: path.to_owned(), text: text.to_owned(), code }
    }

    fn is_rust(&self) -> bool {
        self.path.ends_with(".rs")
    }

    fn is_generated(&self) -> bool {
        self.text.lines().take(3).any(|line| line.contains("@generated"))
    }

    fn is_test(&self) -> bool {
        self.path.ends_with("/tests.rs") || self.path.contains("tests/")
    }

    fn lines_where(&self, judge: impl Fn(&str) -> Option<String>) -> Vec<Finding> {
        let judged = self.text.lines().enumerate();
        judged
            .filter_map(|(at, line)| Some(Finding { line: at + 1, message: judge(line)? }))
            .collect()
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.line, self.message)
    }
}

fn finding_if(broken: bool, line: usize, message: &str) -> Vec<Finding> {
    if broken { vec![Finding { line, message: message.to_owned() }] } else { Vec::new() }
}

// === Reading the repository ===

fn repository() -> Vec<Source> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let mut paths = Vec::new();
    gather(&root, &mut paths);
    let mut sources: Vec<Source> = paths
        .iter()
        .filter_map(|path| {
            let text = fs::read_to_string(path).ok()?;
            Some(Source::new(&path.strip_prefix(&root).unwrap().to_string_lossy(), &text))
        })
        .collect();
    sources.sort_by(|a, b| a.path.cmp(&b.path));
    sources
}

fn gather(folder: &Path, paths: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap().map(Result::unwrap) {
        let (path, name) = (entry.path(), entry.file_name());
        let name = name.to_string_lossy();
        if path.is_dir() {
            if !["target", ".git"].contains(&&*name) {
                gather(&path, paths);
            }
        } else if is_text(&path, &name) {
            paths.push(path);
        }
    }
}

fn is_text(path: &Path, name: &str) -> bool {
    let extension = path.extension().unwrap_or_default().to_string_lossy();
    let written = ["rs", "toml", "md", "yaml", "yml", "json", "sh", "proto"].contains(&&*extension);
    written || ["Makefile", "run"].contains(&name)
}

// === Reading Rust ===

/// Lines before the test module at the end of a file.
fn product_lines(text: &str) -> usize {
    let lines: Vec<&str> = text.lines().collect();
    let tests =
        lines.windows(2).position(|w| w[0] == "#[cfg(test)]" && w[1].starts_with("mod tests {"));
    tests.unwrap_or(lines.len())
}

fn opens_function(line: &str) -> bool {
    let qualifiers = ["pub", "const", "async", "unsafe", "extern"];
    let mut words = line.split_whitespace();
    words.find(|word| !qualifiers.iter().any(|q| word.starts_with(q))) == Some("fn")
}

/// Lines from `fn` to the brace that closes it, which rustfmt puts at the indentation of the `fn`.
fn function_lines(lines: &[&str]) -> usize {
    let indent = lines[0].len() - lines[0].trim_start().len();
    let closing = lines.iter().enumerate().position(|(at, line)| {
        let body = line.trim();
        let outer = line.len() - line.trim_start().len() <= indent && !body.is_empty();
        outer && (body == "}" || body.ends_with(';') || (at == 0 && body.ends_with('}')))
    });
    closing.map_or(lines.len(), |at| at + 1)
}

/// Whether `word` stands in `line` by itself, not as a part of a longer name.
fn has_word(line: &str, word: &str) -> bool {
    let is_name = |c: char| c.is_alphanumeric() || c == '_';
    line.match_indices(word).any(|(at, _)| {
        let before = line[..at].chars().next_back();
        let after = line[at + word.len()..].chars().next();
        !before.is_some_and(is_name) && !after.is_some_and(is_name)
    })
}

/// Blanks comments, strings and characters, and keeps line breaks, so that rules see only code.
fn blank_literals(text: &str) -> String {
    let mut code = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let length = literal_len(rest, code.chars().next_back());
        let (taken, kept) = if length > 0 { (length, false) } else { (first.len_utf8(), true) };
        let blank = |c: char| if kept || c == '\n' { c } else { ' ' };
        code.extend(rest[..taken].chars().map(blank));
        rest = &rest[taken..];
    }
    code
}

/// Length of the comment or literal at the start of `rest`; zero when there is none.
fn literal_len(rest: &str, before: Option<char>) -> usize {
    let until = |end: &str, from: usize| {
        rest[from..].find(end).map_or(rest.len(), |at| from + at + end.len())
    };
    if rest.starts_with("//") {
        return rest.find('\n').unwrap_or(rest.len());
    }
    if rest.starts_with("/*") {
        return until("*/", 2);
    }
    if rest.starts_with('"') {
        return quoted_len(rest, '"');
    }
    let in_name = before.is_some_and(|c| c.is_alphanumeric() && c != 'b');
    if rest.starts_with('r') && !in_name {
        let hashes = rest[1..].len() - rest[1..].trim_start_matches('#').len();
        if rest[1 + hashes..].starts_with('"') {
            return until(&format!("\"{}", "#".repeat(hashes)), 2 + hashes);
        }
    }
    // A quote opens a character, unless it is a lifetime: 'a' against 'a.
    let mut chars = rest.chars();
    match (chars.next(), chars.next(), chars.next()) {
        (Some('\''), Some('\\'), _) => quoted_len(rest, '\''),
        (Some('\''), Some(c), Some('\'')) => 2 + c.len_utf8(),
        _ => 0,
    }
}

fn quoted_len(rest: &str, quote: char) -> usize {
    let mut escaped = false;
    for (at, c) in rest.char_indices().skip(1) {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            _ if c == quote => return at + 1,
            _ => {}
        }
    }
    rest.len()
}

// === Each rule can fail ===

/// The lines that `rule` finds in `text` as the file `path`.
fn lines_found(rule: &str, path: &str, text: &str) -> Vec<usize> {
    let (_, judge) = RULES.iter().find(|(name, _)| *name == rule).expect("a rule of that name");
    judge(&Source::new(path, text)).iter().map(|finding| finding.line).collect()
}

#[test]
fn every_rule_refuses_and_accepts() {
    let long = |lines: usize| format!("//! A long file.\n{}", "// x\n".repeat(lines - 1));
    let function = |lines: usize| format!("fn f() {{\n{}}}\n", "    x();\n".repeat(lines - 2));
    let with_tests = format!("{}#[cfg(test)]\nmod tests {{\n{}}}\n", long(500), "\n".repeat(600));
    let unfinished = concat!("# TO", "DO: later");
    let path = concat!("see /wo", "rk/notes");
    let lints = "[package]\nname = \"x\"\n\n[lints]\nworkspace = true\n";
    #[rustfmt::skip]
    let cases: &[(&str, &str, &str, &[usize])] = &[
        ("header",            "a/src/x.rs",    "use std::fmt;\n", &[1]),
        ("header",            "a/src/x.rs",    "//! x\n", &[1]),
        ("header",            "a/src/x.rs",    "//! What this file is.\n", &[]),
        ("header",            "a/src/x.rs",    "// This file is @generated by prost-build.\n", &[]),
        ("file length",       "a/src/x.rs",    &long(501), &[501]),
        ("file length",       "a/src/x.rs",    &long(500), &[]),
        ("file length",       "a/src/x.rs",    &with_tests, &[]),
        ("file length",       "a/src/tests.rs", &long(900), &[]),
        ("file length",       "a/src/main.rs", &long(121), &[121]),
        ("function length",   "a/src/x.rs",    &function(71), &[1]),
        ("function length",   "a/src/x.rs",    &function(70), &[]),
        ("function length",   "a/tests/x.rs",  &function(71), &[]),
        ("function length",   "a/src/x.rs",    &format!("#[cfg(test)]\nmod tests {{\n{}", function(71)), &[]),
        ("function length",   "a/src/x.rs",    &format!("trait T {{\n    fn f();\n}}\n{}", long(90)), &[]),
        ("function length",   "a/src/x.rs",    &format!("let s = \"\nfn f() {{\n{}\";", long(90)), &[]),
        ("line length",       "a/src/x.rs",    &"é".repeat(111), &[1]),
        ("line length",       "a/src/x.rs",    &"é".repeat(110), &[]),
        ("line length",       "README.md",     &"x".repeat(200), &[]),
        ("file name",         "a/src/utils.rs", "", &[1]),
        ("file name",         "a/helpers/x.rs", "", &[1]),
        ("file name",         "a/src/ring.rs", "", &[]),
        ("layers",            "dataplane/engine/Cargo.toml", "ringtail-crds.workspace = true", &[1]),
        ("layers",            "operator/Cargo.toml", "a = 1\nringtail = { path = \"x\" }", &[2]),
        ("layers",            "dataplane/Cargo.toml", "ringtail-engine.workspace = true", &[]),
        ("layers",            "tests/Cargo.toml", "ringtail.workspace = true", &[]),
        ("pure engine",       "dataplane/engine/src/x.rs", "use std::time::{Duration, Instant};", &[1]),
        ("pure engine",       "dataplane/engine/src/x.rs", "//! No tokio.\nfn tokio_like() {}\n", &[]),
        ("pure engine",       "dataplane/engine/src/x.rs", "let s = 'x'; std::net::f::<'a>(\"\")", &[1]),
        ("pure engine",       "dataplane/engine/src/x.rs", "use opentelemetry_proto::tonic::common;", &[]),
        ("pure engine",       "dataplane/src/x.rs", "use tokio::net;", &[]),
        ("inherited lints",   "a/Cargo.toml",  "[package]\nname = \"x\"\n", &[1]),
        ("inherited lints",   "a/Cargo.toml",  lints, &[]),
        ("expect, not allow", "a/src/x.rs",    "//! X.\n#[allow(dead_code)]\n", &[2]),
        ("expect, not allow", "a/src/x.rs",    "// #[allow(dead_code)]\n", &[]),
        ("unfinished work",   "Makefile",      unfinished, &[1]),
        ("unfinished work",   "a/src/x.rs",    concat!("/// TO", "DOS, the system"), &[]),
        ("machine paths",     "README.md",     path, &[1]),
        ("machine paths",     "README.md",     "the work/life balance", &[]),
    ];
    for (rule, path, text, expected) in cases {
        assert_eq!(lines_found(rule, path, text), *expected, "{rule} on {path}:\n{text}");
    }
    for (name, _) in RULES {
        let fails = cases.iter().any(|(rule, _, _, lines)| rule == name && !lines.is_empty());
        assert!(fails, "no sample shows that '{name}' can fail");
    }
}

#[test]
fn literals_and_comments_are_not_code() {
    let cases = [
        (r#"a("b\"c", 'd', '\'', x)"#, "a(      ,    ,     , x)"),
        ("a /* b\nc */ d // e", "a     \n     d     "),
        (r###"r#"a"b"# + for_r("x")"###, "         + for_r(   )"),
        ("fn f<'a>(x: &'a str) {}", "fn f<'a>(x: &'a str) {}"),
    ];
    for (text, code) in cases {
        assert_eq!(blank_literals(text), code, "{text}");
    }
}
