//! Random traces with attributes, events, states and trace states that policies of every kind ask for.

use opentelemetry_proto::tonic::common::v1::any_value::Value as Any;
use opentelemetry_proto::tonic::common::v1::{AnyValue, InstrumentationScope, KeyValue};
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::span::Event;
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span, Status};

/// The traces are the same in every run.
#[derive(Debug)]
pub struct Random(u64);

impl Random {
    /// Begins at `seed`.
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// A number below `bound`.
    pub fn below(&mut self, bound: u64) -> u64 {
        // A step of splitmix64.
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut x = self.0;
        x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (x ^ (x >> 31)) % bound
    }

    /// One of a list.
    pub fn one_of<T: Copy>(&mut self, list: &[T]) -> T {
        list[self.below(list.len() as u64) as usize]
    }
}

fn pair(key: &str, value: Any) -> KeyValue {
    let value = Some(AnyValue { value: Some(value) });
    KeyValue { key: key.to_owned(), value, ..KeyValue::default() }
}

fn text(value: &str) -> Any {
    Any::StringValue(value.to_owned())
}

fn attributes(random: &mut Random) -> Vec<KeyValue> {
    let mut list = Vec::new();
    for key in ["route", "code", "hit", "ratio"] {
        let value = match (key, random.below(4)) {
            (_, 0) => continue,
            ("route", _) => text(random.one_of(&["/cart", "/checkout/7", "/healthz", "", "ä"])),
            ("code", _) => Any::IntValue(random.one_of(&[-1, 0, 200, 404, 500, 503])),
            ("hit", _) => Any::BoolValue(random.below(2) == 0),
            (_, 1) => text("0.5"),
            _ => Any::DoubleValue(random.one_of(&[0.0, 0.5, 2.0])),
        };
        list.push(pair(key, value));
    }
    list
}

fn span(id: [u8; 16], number: u64, random: &mut Random) -> Span {
    let start = 1_700_000_000_000_000_000 + random.below(100) * 1_000_000;
    let event = |random: &mut Random| Event {
        name: random.one_of(&["exception", "retry"]).to_owned(),
        attributes: vec![pair("type", text(random.one_of(&["io", "sql"])))],
        ..Event::default()
    };
    let code = random.below(3) as i32;
    Span {
        trace_id: id.to_vec(),
        span_id: (number + 1).to_be_bytes().to_vec(),
        parent_span_id: if number == 0 { vec![] } else { vec![9; 8] },
        trace_state: random.one_of(&["", "", "tier=gold", "a=1,tier=lead", "tier", "A=1"]).into(),
        name: random.one_of(&["GET", "POST", "query"]).to_owned(),
        kind: random.below(6) as i32,
        start_time_unix_nano: start,
        end_time_unix_nano: start + random.below(400) * 1_000_000,
        attributes: attributes(random),
        events: (0..random.below(3)).map(|_| event(random)).collect(),
        status: (random.below(3) > 0).then(|| Status { code, message: "m".to_owned() }),
        flags: random.one_of(&[0, 0, 1, 0x100, 0x301]),
        ..Span::default()
    }
}

/// A trace in one or two pieces of up to four spans each, with values that policies ask for.
pub fn trace(number: u32, random: &mut Random) -> Vec<ResourceSpans> {
    let mut id = [0; 16];
    id[..8].copy_from_slice(&random.below(u64::MAX).to_be_bytes());
    id[12..].copy_from_slice(&number.to_be_bytes());
    let mut spans = 0;
    let mut piece = |random: &mut Random| {
        let count = 1 + random.below(4);
        let spans: Vec<Span> = (spans..spans + count)
            .inspect(|_| spans += 1)
            .map(|number| span(id, number, random))
            .collect();
        let mut attributes = attributes(random);
        attributes.push(pair("service.name", text(random.one_of(&["shop", "pay", "db"]))));
        let name = random.one_of(&["http", "grpc"]).to_owned();
        let scope = Some(InstrumentationScope { name, ..InstrumentationScope::default() });
        ResourceSpans {
            resource: Some(Resource { attributes, ..Resource::default() }),
            scope_spans: vec![ScopeSpans { scope, spans, ..ScopeSpans::default() }],
            ..ResourceSpans::default()
        }
    };
    (0..1 + random.below(2)).map(|_| piece(random)).collect()
}
