//! Answers to conditions. Whatever the bytes are, there is an answer or a failure.

use std::borrow::Cow;

use super::convert::{cased, to_double, to_int, to_text};
use super::expression::{Arithmetic, Call, Expression, Operator, Term};
use super::function::Function;
use super::subject::Subject;
use super::value::{Value, elements};

/// A condition asks something of a value that a value of its type cannot answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in super::super) struct Failed;

impl Expression {
    /// Whether the condition holds.
    pub(in super::super) fn holds(&self, subject: &Subject<'_>) -> Result<bool, Failed> {
        match self {
            Self::Constant(value) => Ok(*value),
            Self::Not(inner) => inner.holds(subject).map(|holds| !holds),
            Self::All(parts) => {
                for part in parts {
                    if !part.holds(subject)? {
                        return Ok(false);
                    }
                }
                Ok(true)
            }
            Self::Any(parts) => {
                for part in parts {
                    if part.holds(subject)? {
                        return Ok(true);
                    }
                }
                Ok(false)
            }
            Self::Compare(operator, terms) => {
                let (left, right) = &**terms;
                Ok(operator.holds(&left.value(subject)?, &right.value(subject)?))
            }
            Self::Holds(call) => match call.value(subject)? {
                Value::Bool(value) => Ok(value),
                _ => Err(Failed),
            },
        }
    }
}

impl Term {
    fn value<'a>(&'a self, subject: &Subject<'a>) -> Result<Value<'a>, Failed> {
        Ok(match self {
            Self::Nil => Value::Nil,
            Self::Bool(value) => Value::Bool(*value),
            Self::Int(value) => Value::Int(*value),
            Self::Double(value) => Value::Double(*value),
            Self::Text(text) => Value::text(text.as_bytes()),
            Self::Bytes(bytes) => Value::Bytes(bytes),
            Self::Duration(value) => Value::Duration(*value),
            Self::SpanId(id) => Value::SpanId(*id),
            Self::TraceId(id) => Value::TraceId(*id),
            Self::Path(path) => return subject.value(path),
            Self::Call(call) => return call.value(subject),
            Self::Negative(term) => match term.value(subject)? {
                Value::Int(value) => Value::Int(value.wrapping_neg()),
                Value::Double(value) => Value::Double(-value),
                _ => return Err(Failed),
            },
            Self::Sum(first, rest) => {
                let mut sum = first.value(subject)?;
                for (operator, term) in rest {
                    sum = operator.apply(&sum, &term.value(subject)?)?;
                }
                sum
            }
            Self::List(terms) => {
                let values = terms.iter().map(|term| term.value(subject));
                Value::List(values.collect::<Result<_, _>>()?)
            }
        })
    }
}

impl Arithmetic {
    fn apply(self, left: &Value<'_>, right: &Value<'_>) -> Result<Value<'static>, Failed> {
        use Value::{Double, Duration, Int, Time};
        Ok(match (left, self, right) {
            (Int(a), _, Int(b)) => Int(self.whole(*a, *b)?),
            (Int(a), _, Double(b)) => Double(self.real(*a as f64, *b)?),
            (Double(a), _, Int(b)) => Double(self.real(*a, *b as f64)?),
            (Double(a), _, Double(b)) => Double(self.real(*a, *b)?),
            // The longest that a duration can be is what a longer one becomes.
            (Time(a), Self::Subtract, Time(b)) => Duration(a.saturating_sub(*b)),
            (Time(a), Self::Subtract, Duration(b)) => Time(a.wrapping_sub(*b)),
            (Time(a), Self::Add, Duration(b)) | (Duration(b), Self::Add, Time(a)) => {
                Time(a.wrapping_add(*b))
            }
            (Duration(a), Self::Add, Duration(b)) => Duration(a.wrapping_add(*b)),
            (Duration(a), Self::Subtract, Duration(b)) => Duration(a.wrapping_sub(*b)),
            _ => return Err(Failed),
        })
    }

    fn whole(self, a: i64, b: i64) -> Result<i64, Failed> {
        match self {
            Self::Add => Ok(a.wrapping_add(b)),
            Self::Subtract => Ok(a.wrapping_sub(b)),
            Self::Multiply => Ok(a.wrapping_mul(b)),
            Self::Divide if b == 0 => Err(Failed),
            Self::Divide => Ok(a.wrapping_div(b)),
        }
    }

    fn real(self, a: f64, b: f64) -> Result<f64, Failed> {
        match self {
            Self::Add => Ok(a + b),
            Self::Subtract => Ok(a - b),
            Self::Multiply => Ok(a * b),
            Self::Divide if b == 0.0 => Err(Failed),
            Self::Divide => Ok(a / b),
        }
    }
}

impl Call {
    fn value<'a>(&'a self, subject: &Subject<'a>) -> Result<Value<'a>, Failed> {
        let argument = |place: usize| match self.arguments.get(place) {
            Some(term) => term.value(subject),
            None => Err(Failed),
        };
        let is = |test: fn(&Value<'_>) -> bool| argument(0).map(|value| Value::Bool(test(&value)));
        match self.function {
            Function::IsRootSpan => Ok(Value::Bool(subject.is_root())),
            Function::IsString => is(|value| matches!(value, Value::Text(_))),
            Function::IsInt => is(|value| matches!(value, Value::Int(_))),
            Function::IsDouble => is(|value| matches!(value, Value::Double(_))),
            Function::IsBool => is(|value| matches!(value, Value::Bool(_))),
            Function::IsMap => is(|value| matches!(value, Value::Map(_))),
            Function::IsList => is(|value| matches!(value, Value::Array(_) | Value::List(_))),
            Function::IsMatch => {
                let text = to_text(argument(0)?)?;
                let found = text.zip(self.pattern.as_ref()).is_some_and(|(t, p)| p.is_match(&t));
                Ok(Value::Bool(found))
            }
            Function::HasPrefix => {
                Ok(Value::Bool(text(argument(0)?)?.starts_with(&text(argument(1)?)?)))
            }
            Function::HasSuffix => {
                Ok(Value::Bool(text(argument(0)?)?.ends_with(&text(argument(1)?)?)))
            }
            Function::ContainsValue => contains(&argument(0)?, &argument(1)?).map(Value::Bool),
            Function::Len => length(&argument(0)?).map(Value::Int),
            Function::Concat => concat(argument(0)?, &text(argument(1)?)?),
            Function::Substring => substring(text(argument(0)?)?, &argument(1)?, &argument(2)?),
            Function::ConvertToLower => Ok(owned(cased(&text(argument(0)?)?, false))),
            Function::ConvertToUpper => Ok(owned(cased(&text(argument(0)?)?, true))),
            Function::Int => to_int(&argument(0)?),
            Function::Double => to_double(&argument(0)?),
            Function::String => Ok(to_text(argument(0)?)?.map_or(Value::Nil, Value::Text)),
            Function::Nanoseconds => nanoseconds(&argument(0)?).map(Value::Int),
            Function::Microseconds => nanoseconds(&argument(0)?).map(|ns| Value::Int(ns / 1_000)),
            Function::Milliseconds => {
                nanoseconds(&argument(0)?).map(|ns| Value::Int(ns / 1_000_000))
            }
            Function::Seconds => units(&argument(0)?, 1e9),
            Function::Minutes => units(&argument(0)?, 60e9),
            Function::Hours => units(&argument(0)?, 3600e9),
        }
    }
}

fn owned<'a>(text: Vec<u8>) -> Value<'a> {
    Value::Text(Cow::Owned(text))
}

fn text(value: Value<'_>) -> Result<Cow<'_, [u8]>, Failed> {
    match value {
        Value::Text(text) => Ok(text),
        _ => Err(Failed),
    }
}

fn nanoseconds(value: &Value<'_>) -> Result<i64, Failed> {
    match value {
        Value::Duration(nanoseconds) => Ok(*nanoseconds),
        _ => Err(Failed),
    }
}

fn units<'a>(value: &Value<'_>, unit: f64) -> Result<Value<'a>, Failed> {
    nanoseconds(value).map(|nanoseconds| Value::Double(nanoseconds as f64 / unit))
}

fn contains(list: &Value<'_>, wanted: &Value<'_>) -> Result<bool, Failed> {
    let same = |value: &Value<'_>| Operator::Equal.holds(value, wanted);
    match list {
        Value::Array(body) => Ok(elements(body).any(|any| same(&Value::Nil.then(any)))),
        Value::List(values) => Ok(values.iter().any(same)),
        _ => Err(Failed),
    }
}

fn length(value: &Value<'_>) -> Result<i64, Failed> {
    let length = match value {
        Value::Text(text) => text.len(),
        Value::Bytes(bytes) => bytes.len(),
        Value::Array(body) | Value::Map(body) => elements(body).count(),
        Value::List(values) => values.len(),
        _ => return Err(Failed),
    };
    i64::try_from(length).map_err(|_| Failed)
}

fn concat<'a>(list: Value<'_>, between: &[u8]) -> Result<Value<'a>, Failed> {
    let Value::List(values) = list else { return Err(Failed) };
    let texts = values.into_iter().map(to_text).collect::<Result<Vec<_>, _>>()?;
    let texts: Vec<&[u8]> = texts.iter().map(|text| text.as_deref().unwrap_or(b"<nil>")).collect();
    Ok(owned(texts.join(between)))
}

fn substring<'a>(
    text: Cow<'a, [u8]>,
    start: &Value<'_>,
    length: &Value<'_>,
) -> Result<Value<'a>, Failed> {
    let (Value::Int(start), Value::Int(length @ 1..)) = (start, length) else {
        return Err(Failed);
    };
    let start = usize::try_from(*start).map_err(|_| Failed)?;
    let length = usize::try_from(*length).map_err(|_| Failed)?;
    let end = start.checked_add(length).ok_or(Failed)?;
    match text {
        Cow::Borrowed(text) => text.get(start..end).map(Value::text),
        Cow::Owned(text) => text.get(start..end).map(|part| owned(part.to_vec())),
    }
    .ok_or(Failed)
}
