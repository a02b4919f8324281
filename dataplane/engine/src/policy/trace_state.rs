//! The W3C `tracestate`: a list of members `key=value`, read strictly, because a text that breaks the rules
//! says nothing that everybody reads alike.

/// Members in a list; the specification's limit.
const MEMBERS_MAX: usize = 32;

/// Bytes of a key without a tenant, and of a value; the specification's limits.
const KEY_BYTES_MAX: usize = 256;
pub(super) const VALUE_BYTES_MAX: usize = 256;

/// Bytes of the parts of a key with a tenant, `tenant@system`; the specification's limits.
const TENANT_BYTES_MAX: usize = 241;
const SYSTEM_BYTES_MAX: usize = 14;

/// The value of a key; none when it is missing, or when any part of the list breaks the rules.
pub(crate) fn value<'a>(state: &'a [u8], wanted: &[u8]) -> Option<&'a [u8]> {
    let mut keys: [&[u8]; MEMBERS_MAX] = [&[]; MEMBERS_MAX];
    let (mut found, mut count) = (None, 0);
    for member in state.split(|byte| *byte == b',').filter(|member| !member.is_empty()) {
        let equals = member.iter().position(|byte| *byte == b'=')?;
        let (key, value) = member.split_at(equals);
        let key = trim_start(key);
        let value = trim_end(value.get(1..)?);
        if !is_key(key) || !is_value(value) || keys.get(..count)?.contains(&key) {
            return None;
        }
        *keys.get_mut(count)? = key;
        count += 1;
        if key == wanted {
            found = Some(value);
        }
    }
    found
}

/// Whether a member may have this key.
pub(super) fn is_key(key: &[u8]) -> bool {
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
pub(super) fn is_value(value: &[u8]) -> bool {
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
