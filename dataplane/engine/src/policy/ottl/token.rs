//! The text of a condition as tokens, each with its place.

use super::Refusal;

/// What a token is.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Kind {
    /// A name, a keyword, a function or an enum.
    Word(String),
    Text(String),
    Int(i64),
    Double(f64),
    /// `0x…`
    Bytes(Vec<u8>),
    /// An operator or a bracket.
    Sign(&'static str),
    End,
}

/// A token and the byte at which it begins.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Token {
    pub(super) at: usize,
    pub(super) kind: Kind,
}

/// Longer ones first, so that `<=` is not read as `<`.
const SIGNS: [&str; 21] = [
    "==", "!=", "<=", ">=", "<", ">", "+", "-", "*", "/", "(", ")", "[", "]", ",", ".", "{", "}",
    ":", "=", "!",
];

impl Kind {
    /// The token as a message shows it.
    pub(super) fn shown(&self) -> String {
        match self {
            Self::Word(word) => word.clone(),
            Self::Text(_) => "a text".to_owned(),
            Self::Int(_) | Self::Double(_) => "a number".to_owned(),
            Self::Bytes(_) => "bytes".to_owned(),
            Self::Sign(sign) => format!("'{sign}'"),
            Self::End => "the end".to_owned(),
        }
    }
}

/// All tokens of a condition; the last is [`Kind::End`].
pub(super) fn tokens(text: &str) -> Result<Vec<Token>, Refusal> {
    let mut found = Vec::new();
    let mut at = 0;
    while let Some(rest) = text.get(at..).filter(|rest| !rest.is_empty()) {
        let first = rest.chars().next().unwrap_or_default();
        if first.is_whitespace() {
            at += first.len_utf8();
            continue;
        }
        let (kind, length) = match first {
            'a'..='z' | 'A'..='Z' => word(rest),
            '0'..='9' => number(rest, at)?,
            '.' if rest.as_bytes().get(1).is_some_and(u8::is_ascii_digit) => number(rest, at)?,
            '"' => quoted(rest, at)?,
            _ => sign(rest, at)?,
        };
        found.push(Token { at, kind });
        at += length;
    }
    found.push(Token { at: text.len(), kind: Kind::End });
    Ok(found)
}

fn word(rest: &str) -> (Kind, usize) {
    let length = prefix(rest, |b| b.is_ascii_alphanumeric() || b == b'_');
    (Kind::Word(rest.get(..length).unwrap_or_default().to_owned()), length)
}

fn sign(rest: &str, at: usize) -> Result<(Kind, usize), Refusal> {
    match SIGNS.iter().find(|sign| rest.starts_with(**sign)) {
        Some(sign) => Ok((Kind::Sign(sign), sign.len())),
        None => {
            let first = rest.chars().next().unwrap_or_default();
            let hint = if first == '\'' { "; texts stand in double quotes" } else { "" };
            Err(Refusal::new(at, format!("{first:?} means nothing here{hint}")))
        }
    }
}

fn number(rest: &str, at: usize) -> Result<(Kind, usize), Refusal> {
    if let Some(digits) = rest.strip_prefix("0x") {
        let length = prefix(digits, |b| b.is_ascii_hexdigit());
        let digits = digits.as_bytes().get(..length).unwrap_or_default();
        return match (length, hex(digits)) {
            (1.., Some(bytes)) => Ok((Kind::Bytes(bytes), length + 2)),
            _ => Err(Refusal::new(at, "bytes need an even number of hexadecimal digits after 0x")),
        };
    }
    let whole = prefix(rest, |b| b.is_ascii_digit());
    let mut length = whole;
    let fraction = rest.as_bytes().get(whole..).unwrap_or_default();
    if let [b'.', digit, ..] = fraction
        && digit.is_ascii_digit()
    {
        length += 1 + prefix(rest.get(whole + 1..).unwrap_or_default(), |b| b.is_ascii_digit());
        length += exponent(rest.as_bytes().get(length..).unwrap_or_default());
    }
    let text = rest.get(..length).unwrap_or_default();
    if length == whole {
        let value = text.parse().map_err(|_| Refusal::new(at, "does not fit 64 bits"))?;
        return Ok((Kind::Int(value), length));
    }
    let value = text.parse().map_err(|_| Refusal::new(at, "is no number"))?;
    Ok((Kind::Double(value), length))
}

/// The length of `e+10` and the like.
fn exponent(rest: &[u8]) -> usize {
    let signed = match rest {
        [b'e' | b'E', b'+' | b'-', ..] => 2,
        [b'e' | b'E', ..] => 1,
        _ => return 0,
    };
    let digits = rest.iter().skip(signed).take_while(|b| b.is_ascii_digit()).count();
    if digits == 0 { 0 } else { signed + digits }
}

/// A text in double quotes, with Go's escapes.
fn quoted(rest: &str, at: usize) -> Result<(Kind, usize), Refusal> {
    let mut text = Vec::new();
    let mut bytes = 1;
    while let Some(inner) = rest.get(bytes..) {
        let mut chars = inner.chars();
        match chars.next() {
            None => break,
            Some('"') => {
                let text = String::from_utf8(text)
                    .map_err(|_| Refusal::new(at, "the text is not UTF-8 with its escapes"))?;
                return Ok((Kind::Text(text), bytes + 1));
            }
            Some('\\') => bytes += escape(inner, at + bytes, &mut text)?,
            Some(other) => {
                text.extend_from_slice(other.encode_utf8(&mut [0; 4]).as_bytes());
                bytes += other.len_utf8();
            }
        }
    }
    Err(Refusal::new(at, "the text has no closing quote"))
}

/// A backslash and what follows it; gives the length of both.
fn escape(inner: &str, at: usize, text: &mut Vec<u8>) -> Result<usize, Refusal> {
    let Some(escaped) = inner.chars().nth(1) else {
        return Err(Refusal::new(at, "nothing follows the backslash"));
    };
    let plain = match escaped {
        'n' => b'\n',
        't' => b'\t',
        'r' => b'\r',
        'a' => 7,
        'b' => 8,
        'f' => 12,
        'v' => 11,
        '\\' => b'\\',
        '"' => b'"',
        'x' | 'u' | 'U' => return coded(inner, escaped, at, text),
        '0'..='7' => {
            let digits = inner.get(1..4).and_then(|digits| u8::from_str_radix(digits, 8).ok());
            text.push(digits.ok_or_else(|| {
                Refusal::new(at, "an octal escape has three digits, at most \\377")
            })?);
            return Ok(4);
        }
        other => {
            let message = format!("\\{other} is no escape; for a backslash write two: \\\\{other}");
            return Err(Refusal::new(at, message));
        }
    };
    text.push(plain);
    Ok(2)
}

/// `\x41`, `\u0041` or `\U00000041`.
fn coded(inner: &str, kind: char, at: usize, text: &mut Vec<u8>) -> Result<usize, Refusal> {
    let digits = match kind {
        'x' => 2,
        'u' => 4,
        _ => 8,
    };
    let code = inner.get(2..2 + digits).filter(|code| code.bytes().all(|b| b.is_ascii_hexdigit()));
    let code = code.and_then(|code| u32::from_str_radix(code, 16).ok());
    match (kind, code, code.and_then(char::from_u32)) {
        ('x', Some(byte), _) => text.extend(u8::try_from(byte)),
        ('u' | 'U', Some(_), Some(c)) => {
            text.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
        }
        _ => {
            let message = format!("\\{kind} needs {digits} hexadecimal digits of a character");
            return Err(Refusal::new(at, message));
        }
    }
    Ok(2 + digits)
}

/// The bytes that hexadecimal digits stand for.
pub(super) fn hex(digits: &[u8]) -> Option<Vec<u8>> {
    let (pairs, []) = digits.as_chunks::<2>() else { return None };
    let digit = |byte: u8| char::from(byte).to_digit(16);
    let byte = |pair: &[u8; 2]| u8::try_from(digit(pair[0])? << 4 | digit(pair[1])?).ok();
    pairs.iter().map(byte).collect()
}

/// How many bytes from the start are of a kind.
fn prefix(text: &str, is: impl Fn(u8) -> bool) -> usize {
    text.bytes().take_while(|byte| is(*byte)).count()
}
