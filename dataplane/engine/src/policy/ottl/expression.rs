//! A condition after parsing: questions with yes or no for an answer, and the values that they compare.

use regex::bytes::Regex;

use super::function::Function;
use super::path::Path;

/// A question.
#[derive(Debug, Clone)]
pub(in super::super) enum Expression {
    Constant(bool),
    Not(Box<Expression>),
    All(Vec<Expression>),
    Any(Vec<Expression>),
    Compare(Operator, Box<(Term, Term)>),
    /// A function whose value is a bool.
    Holds(Box<Call>),
}

/// How two values are compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in super::super) enum Operator {
    Equal,
    NotEqual,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
}

/// Something that has a value.
#[derive(Debug, Clone)]
pub(in super::super) enum Term {
    Nil,
    Bool(bool),
    Int(i64),
    Double(f64),
    Text(String),
    Bytes(Vec<u8>),
    /// Nanoseconds.
    Duration(i64),
    SpanId([u8; 8]),
    TraceId([u8; 16]),
    Path(Path),
    Call(Box<Call>),
    Negative(Box<Term>),
    /// From left to right.
    Sum(Box<Term>, Vec<(Arithmetic, Term)>),
    List(Vec<Term>),
}

/// An operator between numbers, times or durations.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in super::super) enum Arithmetic {
    Add,
    Subtract,
    Multiply,
    Divide,
}

/// A function with its arguments.
#[derive(Debug, Clone)]
pub(in super::super) struct Call {
    pub(super) function: Function,
    pub(super) arguments: Vec<Term>,
    /// The compiled pattern of `IsMatch`.
    pub(super) pattern: Option<Regex>,
}
