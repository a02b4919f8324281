//! Patterns against values, with the answers of Go's regexp package.

use super::*;

fn matches(pattern: &str, value: &str) -> bool {
    compile(&[pattern.to_owned()]).unwrap().is_match(value.as_bytes())
}

#[test]
fn patterns_mean_what_they_mean_in_go() {
    let cases = [
        // Searched for anywhere, unless anchored.
        ("check", "/checkout/7", true),
        ("^check", "/checkout", false),
        ("out$", "/checkout", true),
        ("out$", "/checkout\n", false),
        ("(?i)CHECK", "/checkout", true),
        ("a.b", "a\nb", false),
        ("(?s)a.b", "a\nb", true),
        // Perl classes and word boundaries are ASCII.
        (r"^\d+$", "123", true),
        (r"^\d+$", "١٢٣", false),
        (r"^\D$", "١", true),
        (r"^\w+$", "naïve", false),
        (r"^\W$", "ï", true),
        (r"^\w+$", "nai_ve9", true),
        (r"\s", "a\u{a0}b", false),
        (r"\s", "a\u{b}b", false),
        (r"^\S$", "\u{a0}", true),
        (r"\bve\b", "ï ve", true),
        (r"na\b", "naïve", true),
        (r"na\B", "naïve", false),
        // Inside classes as well.
        (r"^[\d.]+$", "1.2", true),
        (r"^[^\d]+$", "1", false),
        (r"^[^\D]+$", "1", true),
        (r"^[\w-]+$", "a-b_c", true),
        (r"^[\s\d]+$", "1 2", true),
        // Brackets, ampersands and tildes inside classes are characters.
        ("^[[a]b$", "[b", true),
        ("^[[a]b$", "ab", true),
        ("^[a&&b]+$", "a&b", true),
        ("^[a~~b]+$", "a~b", true),
        ("^[+--]+$", "+,-", true),
        ("^[+--]$", ".", false),
        ("^[--/]+$", "-./", true),
        ("^[^--/]$", ".", false),
        ("^[a-]+$", "a-", true),
        ("^[-a]+$", "a-", true),
        ("^[]a]+$", "]a", true),
        ("^[^]a]$", "]", false),
        ("^[^]a]$", "b", true),
        ("^[[:alpha:]_]+$", "ab_", true),
        ("^[[:^alpha:]]$", "1", true),
        // Quotation and escapes.
        (r"^\Qa.b\E+$", "a.bbb", true),
        (r"^\Qa.b\E+$", "axb", false),
        (r"^\Qa+b", "a+b", true),
        (r"^\<a\>$", "<a>", true),
        (r"^a\\d$", r"a\d", true),
        (r"^\\$", r"\", true),
        (r"\x{e9}", "é", true),
        (r"^\p{Greek}$", "λ", true),
        ("é", "é", true),
    ];
    for (pattern, value, expected) in cases {
        assert_eq!(matches(pattern, value), expected, "{pattern:?} in {value:?}");
        assert_eq!(check(pattern), Ok(()), "{pattern:?}");
    }
}

#[test]
fn any_of_several_patterns_will_do() {
    let set = compile(&["^a".to_owned(), "z$".to_owned()]).unwrap();
    assert!(set.is_match(b"ab") && set.is_match(b"yz") && !set.is_match(b"ba"));
    // A flag of one pattern does not reach the next.
    let set = compile(&["(?i)a".to_owned(), "b".to_owned()]).unwrap();
    assert!(set.is_match(b"A") && !set.is_match(b"B"));
}

#[test]
fn bytes_that_are_no_text_are_searched_without_a_panic() {
    let set = compile(&["^a.*b$".to_owned(), r"\bx\b".to_owned()]).unwrap();
    assert!(!set.is_match(b"a\xffb"));
    assert!(set.is_match(b"\xff x \xfe"));
}

#[test]
fn what_is_no_pattern_is_explained_in_a_line() {
    let cases = [
        ("a(", "unclosed group"),
        ("[a", "unclosed character class"),
        ("*", "repetition operator missing expression"),
        (r"(?=a)", "look-around"),
        (r"(a)\1", "backreferences are not supported"),
        ("\\", "incomplete escape sequence"),
        (r"[\b]", "invalid escape sequence found in character class"),
        (r"\101", "backreferences are not supported"),
        ("a{", "unclosed counted repetition"),
        ("[a--b]", "invalid character class range"),
        (r"\pÄ", "Unicode property not found"),
    ];
    for (pattern, expected) in cases {
        let error = check(pattern).unwrap_err().to_string();
        assert!(error.contains(expected) && !error.contains('\n'), "{pattern:?}: {error}");
    }
}

#[test]
fn patterns_that_would_grow_too_big_are_refused() {
    assert_eq!(check(r"\p{L}{1000}"), Err(PatternError::TooBig(MAX_REGEX_BYTES)));
    assert_eq!(check(r"(((a{100}){100}){100}){100}"), Err(PatternError::TooBig(MAX_REGEX_BYTES)));
    let many = vec![r"\p{L}{20}".to_owned(); 64];
    assert_eq!(check(&many[0]), Ok(()));
    assert_eq!(compile(&many).unwrap_err(), PatternError::TooBig(MAX_REGEX_BYTES));
    assert!(PatternError::TooBig(MAX_REGEX_BYTES).to_string().contains("1048576 bytes"));
}

#[test]
fn translation_never_panics() {
    use proptest::prelude::*;
    proptest!(|(pattern in r"[\\\[\]^:QE&~dwbsBD<>é(){}*+?.a-c|]{0,24}")| {
        let _ = check(&pattern);
    });
}
