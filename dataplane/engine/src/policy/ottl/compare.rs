//! How values compare: by OTTL's table, in which values of different types are never equal and never in
//! order, apart from the two kinds of numbers.

use std::cmp::Ordering;

use super::expression::Operator;
use super::value::{Value, elements};

impl Operator {
    /// Whether two values are in this relation.
    pub(super) fn holds(self, left: &Value<'_>, right: &Value<'_>) -> bool {
        match order(left, right) {
            Relation::Ordered(ordering) => self.accepts(ordering),
            Relation::Equal => {
                matches!(self, Self::Equal | Self::LessOrEqual | Self::GreaterOrEqual)
            }
            Relation::Same => self == Self::Equal,
            Relation::Different => self == Self::NotEqual,
        }
    }

    fn accepts(self, ordering: Ordering) -> bool {
        match self {
            Self::Equal => ordering.is_eq(),
            Self::NotEqual => ordering.is_ne(),
            Self::Less => ordering.is_lt(),
            Self::LessOrEqual => ordering.is_le(),
            Self::Greater => ordering.is_gt(),
            Self::GreaterOrEqual => ordering.is_ge(),
        }
    }
}

/// How two values lie to each other.
enum Relation {
    Ordered(Ordering),
    /// Both are nil.
    Equal,
    /// Equal, of a type without an order.
    Same,
    /// Not equal, of a type without an order or of different types.
    Different,
}

fn order(left: &Value<'_>, right: &Value<'_>) -> Relation {
    use Value::{Array, Bool, Bytes, Double, Duration, Int, List, Map, Nil, Text, Time};
    let same = |same: bool| if same { Relation::Same } else { Relation::Different };
    let doubles = |a: f64, b: f64| {
        // What is no number is in no order to anything, and not equal to itself.
        a.partial_cmp(&b).map_or(Relation::Different, Relation::Ordered)
    };
    match (left, right) {
        (Nil, Nil) => Relation::Equal,
        (Bool(a), Bool(b)) => Relation::Ordered(a.cmp(b)),
        (Int(a), Int(b)) => Relation::Ordered(a.cmp(b)),
        (Int(a), Double(b)) => doubles(*a as f64, *b),
        (Double(a), Int(b)) => doubles(*a, *b as f64),
        (Double(a), Double(b)) => doubles(*a, *b),
        (Text(a), Text(b)) => Relation::Ordered(a.cmp(b)),
        (Bytes(a), Bytes(b)) => Relation::Ordered(a.cmp(b)),
        (Time(a), Time(b)) | (Duration(a), Duration(b)) => Relation::Ordered(a.cmp(b)),
        (Value::SpanId(a), Value::SpanId(b)) => same(a == b),
        (Value::TraceId(a), Value::TraceId(b)) => same(a == b),
        (Array(a), List(b)) | (List(b), Array(a)) => {
            let mut left = elements(a).map(|any| Nil.then(any));
            let equal = b.iter().all(|b| left.next().is_some_and(|a| Operator::Equal.holds(&a, b)));
            same(equal && left.next().is_none())
        }
        (List(a), List(b)) => {
            let equal = |(a, b): (&Value<'_>, &Value<'_>)| Operator::Equal.holds(a, b);
            same(a.len() == b.len() && a.iter().zip(b).all(equal))
        }
        // The same value has many encodings, but one sender has one encoder.
        (Array(a), Array(b)) | (Map(a), Map(b)) => same(a == b),
        _ => Relation::Different,
    }
}
