//! "Did you mean": the known word that a wrong one most likely stands for.

/// The candidate that `word` most likely stands for, if one is near enough.
pub(crate) fn nearest<'a>(
    word: &str,
    candidates: impl IntoIterator<Item = &'a str>,
) -> Option<&'a str> {
    let word = plain(word);
    // A third of the letters may differ: a typo or two, or another ending, but not another word.
    let tolerance = (word.chars().count() / 3).max(1);
    let scored =
        candidates.into_iter().map(|candidate| (score(&word, &plain(candidate)), candidate));
    scored
        .filter(|(score, _)| *score <= tolerance)
        .min_by_key(|(score, _)| *score)
        .map(|(_, best)| best)
}

// People bring snake_case and capitals from other configurations.
fn plain(word: &str) -> String {
    word.chars().filter(|c| !matches!(c, '_' | '-' | ' ')).flat_map(char::to_lowercase).collect()
}

// `threshold_ms` means `threshold`: what only carries a unit behind it is one step away.
fn score(word: &str, candidate: &str) -> usize {
    let unit = word.strip_prefix(candidate).is_some_and(|rest| {
        matches!(rest, "ms" | "s" | "sec" | "seconds" | "millis" | "bytes" | "mib" | "kib")
    });
    if unit { 1 } else { distance(word, candidate) }
}

// Levenshtein: the insertions, deletions and replacements that make one word of the other. Words come from
// a manifest's keys, whose length a limit bounds elsewhere only after this; so long ones are not compared
// at all.
fn distance(left: &str, right: &str) -> usize {
    const LENGTH_MAX: usize = 64;
    let right: Vec<char> = right.chars().collect();
    if left.len() > LENGTH_MAX {
        return usize::MAX;
    }
    let mut row: Vec<usize> = (0..=right.len()).collect();
    for (i, l) in left.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, r) in right.iter().enumerate() {
            let replaced = diagonal + usize::from(l != *r);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[right.len()]
}
