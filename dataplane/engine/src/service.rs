//! The name of the service that a resource is of, read from its bytes.

use crate::scan::Headers;
use crate::wire::{Reader, Value};

/// `ResourceSpans.resource`, `Resource.attributes`, and key and value of an attribute.
const RESOURCE: u32 = 1;
const ATTRIBUTES: u32 = 1;
const KEY: u32 = 1;
const VALUE: u32 = 2;
/// `AnyValue.string_value`.
const STRING: u32 = 1;

const SERVICE_NAME: &[u8] = b"service.name";

/// The text of the first `service.name`, given the fields of a `ResourceSpans` other than the spans; empty
/// when there is none.
pub fn name<'a>(headers: &Headers<'a>) -> &'a [u8] {
    let attributes =
        children(headers.bytes(), RESOURCE).flat_map(|resource| children(resource, ATTRIBUTES));
    for attribute in attributes {
        if children(attribute, KEY).last() == Some(SERVICE_NAME) {
            let value = children(attribute, VALUE).last().unwrap_or_default();
            return children(value, STRING).last().unwrap_or_default();
        }
    }
    &[]
}

/// What the fields with this number hold, as far as the bytes are a message.
fn children(message: &[u8], number: u32) -> impl Iterator<Item = &[u8]> {
    let mut fields = Reader::new(message);
    std::iter::from_fn(move || {
        loop {
            let field = fields.next_field().ok().flatten()?;
            if let (true, Value::Bytes(bytes)) = (field.number == number, field.value) {
                return Some(bytes);
            }
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A field with this number that holds bytes, shorter than 128.
    fn field(number: u8, bytes: &[u8]) -> Vec<u8> {
        let mut out = vec![number << 3 | 2, bytes.len() as u8];
        out.extend_from_slice(bytes);
        out
    }

    fn attribute(key: &str, value: &[u8]) -> Vec<u8> {
        field(1, &[field(1, key.as_bytes()), field(2, value)].concat())
    }

    #[test]
    fn the_name_of_a_service_is_the_first_text_of_that_key() {
        let text = |text: &str| field(1, text.as_bytes());
        let resource = |attributes: &[Vec<u8>]| field(1, &attributes.concat());
        let other = attribute("host.name", &text("a"));
        let cases = [
            (resource(&[other.clone(), attribute("service.name", &text("pay"))]), "pay"),
            (
                resource(&[
                    attribute("service.name", &text("pay")),
                    attribute("service.name", &text("b")),
                ]),
                "pay",
            ),
            (resource(&[attribute("service.name", &[0x18, 7])]), ""),
            (resource(&[other]), ""),
            (Vec::new(), ""),
            (vec![0x0a, 0x7f, 1], ""),
        ];
        for (bytes, expected) in cases {
            assert_eq!(name(&Headers::whole(&bytes)), expected.as_bytes(), "{bytes:?}");
        }
    }
}
