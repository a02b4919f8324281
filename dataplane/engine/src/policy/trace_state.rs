//! The W3C `tracestate`: a list of members `key=value`, read strictly, because a text that breaks the rules
//! says nothing that everybody reads alike.

/// Members in a list; the specification's limit.
pub(crate) const MEMBERS_MAX: usize = 32;

/// Bytes of a key without a tenant, and of a value; the specification's limits.
const KEY_BYTES_MAX: usize = 256;
pub(crate) const VALUE_BYTES_MAX: usize = 256;

/// Bytes of the parts of a key with a tenant, `tenant@system`; the specification's limits.
const TENANT_BYTES_MAX: usize = 241;
const SYSTEM_BYTES_MAX: usize = 14;

/// A list that breaks the rules.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Broken;

/// The value of a key; none when it is missing, or when any part of the list breaks the rules.
pub(crate) fn value<'a>(state: &'a [u8], wanted: &[u8]) -> Option<&'a [u8]> {
    find(state, wanted).ok().flatten()
}

/// The value of a key in a list that keeps the rules.
pub(crate) fn find<'a>(state: &'a [u8], wanted: &[u8]) -> Result<Option<&'a [u8]>, Broken> {
    let mut keys: [&[u8]; MEMBERS_MAX] = [&[]; MEMBERS_MAX];
    let (mut found, mut count) = (None, 0);
    for (key, value) in members(state) {
        let value = value.ok_or(Broken)?;
        let known = keys.get(..count).ok_or(Broken)?;
        if !is_key(key) || !is_value(value) || known.contains(&key) {
            return Err(Broken);
        }
        *keys.get_mut(count).ok_or(Broken)? = key;
        count += 1;
        if key == wanted {
            found = Some(value);
        }
    }
    Ok(found)
}

/// The members of a list with their values, whatever they are.
pub(crate) fn members(state: &[u8]) -> impl Iterator<Item = (&[u8], Option<&[u8]>)> {
    state.split(|byte| *byte == b',').filter(|member| !member.is_empty()).map(|member| {
        let equals = member.iter().position(|byte| *byte == b'=');
        let (key, value) = member.split_at(equals.unwrap_or(member.len()));
        (trim_start(key), value.get(1..).map(trim_end))
    })
}

/// Whether a member may have this key.
pub(crate) fn is_key(key: &[u8]) -> bool {
    let rest_is_plain = |part: &[u8]| {
        let plain = |b: &u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b"_-*/".contains(b);
        part.iter().skip(1).all(plain)
    };
    let begins = |part: &[u8], with_digit: bool| {
        let first = part.first();
        first.is_some_and(|b| b.is_ascii_lowercase() || with_digit && b.is_ascii_digit())
    };
    match key.iter().position(|byte| *byte == b'@') {
        None => key.len() <= KEY_BYTES_MAX && begins(key, false) && rest_is_plain(key),
        Some(at) => {
            let (tenant, system) = (&key[..at], &key[at + 1..]);
            tenant.len() <= TENANT_BYTES_MAX
                && system.len() <= SYSTEM_BYTES_MAX
                && begins(tenant, true)
                && rest_is_plain(tenant)
                && begins(system, false)
                && rest_is_plain(system)
        }
    }
}

/// Whether a member may have this value.
pub(crate) fn is_value(value: &[u8]) -> bool {
    let plain = |b: &u8| (0x20..=0x7e).contains(b) && *b != b',' && *b != b'=';
    value.len() <= VALUE_BYTES_MAX
        && value.iter().all(plain)
        && value.last().is_some_and(|last| *last != b' ')
}

fn trim_start(mut text: &[u8]) -> &[u8] {
    while let [b' ' | b'\t', rest @ ..] = text {
        text = rest;
    }
    text
}

fn trim_end(mut text: &[u8]) -> &[u8] {
    while let [rest @ .., b' ' | b'\t'] = text {
        text = rest;
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_found_in_lists_that_keep_the_rules() {
        let many = |count: usize| {
            (0..count).map(|n| format!("k{n}=v")).collect::<Vec<_>>().join(",") + ",wanted=x"
        };
        let long = |key: usize, value: usize| {
            format!("{}=v,{}={},wanted=x", "k".repeat(key), "l", "v".repeat(value))
        };
        let cases: [(&str, Option<&str>); 26] = [
            ("", None),
            ("wanted=x", Some("x")),
            ("a=1,wanted=x", Some("x")),
            ("wanted=x,a=1", Some("x")),
            ("a=1 , wanted=x\t", Some("x")),
            (",,wanted=x,", Some("x")),
            ("wanted= x", Some(" x")),
            ("wanted=a b", Some("a b")),
            ("t1@sys=1,wanted=x", Some("x")),
            ("1t@sys=1,wanted=x", Some("x")),
            ("a=1", None),
            ("wanted=", None),
            ("wanted=x,wanted=y", None),
            ("wanted=x,a=1,a=2", None),
            ("wanted=x,a", None),
            ("wanted=x, ", None),
            ("wanted=x,a=b=c", None),
            ("wanted=x,A=1", None),
            ("wanted=x,1a=1", None),
            ("wanted=x,t@1s=1", None),
            ("wanted=x,@s=1", None),
            ("wanted=x,a=\u{e9}", None),
            (&many(31), Some("x")),
            (&many(32), None),
            (&long(256, 256), Some("x")),
            (&long(257, 1), None),
        ];
        for (state, expected) in cases {
            let found = value(state.as_bytes(), b"wanted");
            assert_eq!(found, expected.map(str::as_bytes), "{state:?}");
        }
        assert_eq!(value(long(1, 257).as_bytes(), b"wanted"), None);
    }
}
