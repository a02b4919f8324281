//! Metrics as Prometheus reads them, from the classic text as from OpenMetrics.

use std::collections::BTreeMap;

/// Labels by name.
pub type Labels = BTreeMap<String, String>;

/// Samples by name and labels.
pub type Samples = BTreeMap<(String, Labels), f64>;

/// Reads a page.
///
/// # Panics
/// With the line, when it is no sample, or one that was there before.
pub fn parse(page: &str) -> Samples {
    let mut samples = Samples::new();
    for line in page.lines().filter(|line| !line.starts_with('#') && !line.trim().is_empty()) {
        let (key, value) = sample(line).unwrap_or_else(|| panic!("no sample: {line}"));
        assert!(samples.insert(key, value).is_none(), "twice: {line}");
    }
    samples
}

fn sample(line: &str) -> Option<((String, Labels), f64)> {
    let name_end = line.find(['{', ' '])?;
    let (name, mut rest) = line.split_at(name_end);
    let mut labels = Labels::new();
    if let Some(inside) = rest.strip_prefix('{') {
        rest = inside;
        while !rest.starts_with('}') {
            let (label, after) = rest.split_once("=\"")?;
            let mut value = String::new();
            let mut letters = after.char_indices();
            let end = loop {
                match letters.next()? {
                    (end, '"') => break end,
                    (_, '\\') => value.push(match letters.next()?.1 {
                        'n' => '\n',
                        other => other,
                    }),
                    (_, letter) => value.push(letter),
                }
            };
            labels.insert(label.trim_start_matches([',', ' ']).to_owned(), value);
            rest = &after[end + 1..];
        }
        rest = &rest[1..];
    }
    // An exemplar may follow.
    let value = rest.trim_start().split(' ').next()?.parse().ok()?;
    Some(((name.to_owned(), labels), value))
}

/// The sum of the samples of this name.
pub fn sum(samples: &Samples, name: &str) -> f64 {
    samples.iter().filter(|((of, _), _)| of == name).map(|(_, value)| value).sum()
}
