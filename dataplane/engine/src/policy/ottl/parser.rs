//! From the text of a condition to an [`Expression`].
//!
//! Questions and values share one descent, because only what follows a bracket tells which of them it holds;
//! each place is read once, so that the time is linear in the length.

use super::expression::{Arithmetic, Call, Expression, Operator, Term};
use super::function::{ENUMS, FUNCTIONS, Function, names};
use super::path::{Key, Path};
use super::token::{Kind, Token, tokens};
use super::{Context, Refusal, duration};
use crate::policy::limits::MAX_CONDITION_DEPTH;
use crate::policy::pattern;

/// Parses a condition. Each of its patterns may take `pattern_bytes` of memory.
pub(in super::super) fn parse(
    text: &str,
    context: Context,
    pattern_bytes: usize,
) -> Result<Expression, Refusal> {
    let tokens = tokens(text)?;
    let mut parser = Parser { tokens: &tokens, at: 0, depth: 0, context, pattern_bytes };
    let node = parser.any()?;
    match parser.peek() {
        Kind::End => node.question(),
        other => {
            let message = format!("expected and, or or the end, found {}", other.shown());
            Err(parser.refuse(message))
        }
    }
}

struct Parser<'t> {
    tokens: &'t [Token],
    /// The next token.
    at: usize,
    /// Brackets, functions, lists and signs that are open.
    depth: usize,
    context: Context,
    pattern_bytes: usize,
}

/// A part of a condition and where it begins.
struct Node {
    at: usize,
    what: What,
}

enum What {
    Question(Expression),
    Value(Term),
}

// === impl Node ===

impl Node {
    fn question(self) -> Result<Expression, Refusal> {
        match self.what {
            What::Question(expression) => Ok(expression),
            What::Value(Term::Bool(value)) => Ok(Expression::Constant(value)),
            What::Value(Term::Call(call)) if call.function.is_question() => {
                Ok(Expression::Holds(call))
            }
            What::Value(_) => {
                let message = "a value alone is no condition: compare it, for example with == true";
                Err(Refusal::new(self.at, message))
            }
        }
    }

    fn value(self) -> Result<Term, Refusal> {
        match self.what {
            What::Value(term) => Ok(term),
            What::Question(_) => {
                Err(Refusal::new(self.at, "a condition cannot stand where a value is needed"))
            }
        }
    }
}

// === impl Parser ===

impl Parser<'_> {
    fn peek(&self) -> &Kind {
        self.tokens.get(self.at).map_or(&Kind::End, |token| &token.kind)
    }

    fn place(&self) -> usize {
        self.tokens.get(self.at).or(self.tokens.last()).map_or(0, |token| token.at)
    }

    fn refuse(&self, message: impl Into<String>) -> Refusal {
        Refusal::new(self.place(), message)
    }

    /// Takes the next token if it is this sign.
    fn sign(&mut self, wanted: &str) -> bool {
        let found = matches!(self.peek(), Kind::Sign(sign) if *sign == wanted);
        self.at += usize::from(found);
        found
    }

    /// Takes the next token if it is this word.
    fn word(&mut self, wanted: &str) -> bool {
        let found = matches!(self.peek(), Kind::Word(word) if word == wanted);
        self.at += usize::from(found);
        found
    }

    fn expect(&mut self, wanted: &str) -> Result<(), Refusal> {
        match self.sign(wanted) {
            true => Ok(()),
            false => {
                Err(self.refuse(format!("expected '{wanted}', found {}", self.peek().shown())))
            }
        }
    }

    fn enter(&mut self) -> Result<(), Refusal> {
        self.depth += 1;
        match self.depth > MAX_CONDITION_DEPTH {
            true => Err(self.refuse(format!("is nested more than {MAX_CONDITION_DEPTH} deep"))),
            false => Ok(()),
        }
    }

    // === Questions ===

    fn any(&mut self) -> Result<Node, Refusal> {
        self.joined("or", Self::all, Expression::Any)
    }

    fn all(&mut self) -> Result<Node, Refusal> {
        self.joined("and", Self::negation, Expression::All)
    }

    /// One part, or a question of several with `by` between them.
    fn joined(
        &mut self,
        by: &str,
        part: fn(&mut Self) -> Result<Node, Refusal>,
        join: fn(Vec<Expression>) -> Expression,
    ) -> Result<Node, Refusal> {
        let first = part(self)?;
        if !matches!(self.peek(), Kind::Word(word) if *word == by) {
            return Ok(first);
        }
        let at = first.at;
        let mut parts = vec![first.question()?];
        while self.word(by) {
            parts.push(part(self)?.question()?);
        }
        Ok(Node { at, what: What::Question(join(parts)) })
    }

    fn negation(&mut self) -> Result<Node, Refusal> {
        let at = self.place();
        if !self.word("not") {
            return self.comparison();
        }
        let inner = self.comparison()?.question()?;
        Ok(Node { at, what: What::Question(Expression::Not(Box::new(inner))) })
    }

    fn comparison(&mut self) -> Result<Node, Refusal> {
        let left = self.sum()?;
        let operator = match self.peek() {
            Kind::Sign("==") => Operator::Equal,
            Kind::Sign("!=") => Operator::NotEqual,
            Kind::Sign("<") => Operator::Less,
            Kind::Sign("<=") => Operator::LessOrEqual,
            Kind::Sign(">") => Operator::Greater,
            Kind::Sign(">=") => Operator::GreaterOrEqual,
            Kind::Sign("=") => return Err(self.refuse("'=' compares nothing: write '=='")),
            Kind::Sign("!") => {
                return Err(self.refuse("'!' means nothing here: write not, or '!='"));
            }
            _ => return Ok(left),
        };
        self.at += 1;
        let at = left.at;
        let terms = Box::new((left.value()?, self.sum()?.value()?));
        Ok(Node { at, what: What::Question(Expression::Compare(operator, terms)) })
    }

    // === Values ===

    fn sum(&mut self) -> Result<Node, Refusal> {
        self.chain(Self::product, |kind| match kind {
            Kind::Sign("+") => Some(Arithmetic::Add),
            Kind::Sign("-") => Some(Arithmetic::Subtract),
            _ => None,
        })
    }

    fn product(&mut self) -> Result<Node, Refusal> {
        self.chain(Self::signed, |kind| match kind {
            Kind::Sign("*") => Some(Arithmetic::Multiply),
            Kind::Sign("/") => Some(Arithmetic::Divide),
            _ => None,
        })
    }

    fn chain(
        &mut self,
        next: fn(&mut Self) -> Result<Node, Refusal>,
        operator: fn(&Kind) -> Option<Arithmetic>,
    ) -> Result<Node, Refusal> {
        let first = next(self)?;
        if operator(self.peek()).is_none() {
            return Ok(first);
        }
        let at = first.at;
        let (first, mut rest) = (first.value()?, Vec::new());
        while let Some(operator) = operator(self.peek()) {
            self.at += 1;
            rest.push((operator, next(self)?.value()?));
        }
        Ok(Node { at, what: What::Value(Term::Sum(Box::new(first), rest)) })
    }

    fn signed(&mut self) -> Result<Node, Refusal> {
        let at = self.place();
        if self.sign("-") {
            self.enter()?;
            let term = match self.signed()?.value()? {
                Term::Int(value) => Term::Int(value.wrapping_neg()),
                Term::Double(value) => Term::Double(-value),
                other => Term::Negative(Box::new(other)),
            };
            self.depth -= 1;
            return Ok(Node { at, what: What::Value(term) });
        }
        self.sign("+");
        self.primary()
    }

    fn primary(&mut self) -> Result<Node, Refusal> {
        let at = self.place();
        let term = match self.peek().clone() {
            Kind::Sign("(") => {
                self.at += 1;
                self.enter()?;
                let inner = self.any()?;
                self.expect(")")?;
                self.depth -= 1;
                return Ok(Node { at, ..inner });
            }
            Kind::Sign("[") => return self.list().map(|term| Node { at, what: What::Value(term) }),
            Kind::Sign("{") => return Err(self.refuse("maps are not supported")),
            Kind::Word(word) => self.named(&word)?,
            Kind::Int(value) => self.literal(Term::Int(value)),
            Kind::Double(value) => self.literal(Term::Double(value)),
            Kind::Text(text) => self.literal(Term::Text(text)),
            Kind::Bytes(bytes) => self.literal(Term::Bytes(bytes)),
            other => return Err(self.refuse(format!("expected a value, found {}", other.shown()))),
        };
        Ok(Node { at, what: What::Value(term) })
    }

    fn literal(&mut self, term: Term) -> Term {
        self.at += 1;
        term
    }

    fn list(&mut self) -> Result<Term, Refusal> {
        self.expect("[")?;
        self.enter()?;
        let mut terms = Vec::new();
        while !self.sign("]") {
            if !terms.is_empty() {
                self.expect(",")?;
            }
            terms.push(self.sum()?.value()?);
        }
        self.depth -= 1;
        Ok(Term::List(terms))
    }

    /// Keywords, functions, enums and paths.
    fn named(&mut self, word: &str) -> Result<Term, Refusal> {
        let calls =
            matches!(self.tokens.get(self.at + 1).map(|token| &token.kind), Some(Kind::Sign("(")));
        match word {
            "true" | "false" => Ok(self.literal(Term::Bool(word == "true"))),
            "nil" => Ok(self.literal(Term::Nil)),
            "and" | "or" | "not" | "where" => {
                Err(self.refuse(format!("expected a value, found {word}")))
            }
            _ if calls => self.call(word),
            _ if word.starts_with(|c: char| c.is_ascii_uppercase()) => {
                match ENUMS.iter().find(|(name, _)| *name == word) {
                    Some((_, value)) => Ok(self.literal(Term::Int(*value))),
                    None => {
                        let names: Vec<_> = ENUMS.iter().map(|(name, _)| *name).collect();
                        let names = names.join(", ");
                        Err(self.refuse(format!("{word} is not supported; constants are {names}")))
                    }
                }
            }
            _ => self.path(),
        }
    }

    fn path(&mut self) -> Result<Term, Refusal> {
        let start = self.place();
        let mut name = String::new();
        loop {
            let Kind::Word(word) = self.peek() else {
                return Err(self.refuse(format!("expected a name, found {}", self.peek().shown())));
            };
            name.push_str(word);
            self.at += 1;
            if !self.sign(".") {
                break;
            }
            name.push('.');
        }
        let mut keys = Vec::new();
        while self.sign("[") {
            keys.push(match self.peek().clone() {
                Kind::Text(text) => Key::Text(text),
                Kind::Int(index) => Key::Index(index),
                other => {
                    let message = format!("expected a text as key, found {}", other.shown());
                    return Err(self.refuse(message));
                }
            });
            self.at += 1;
            self.expect("]")?;
        }
        let path = Path::new(&name, keys, self.context);
        path.map(Term::Path).map_err(|message| Refusal::new(start, message))
    }

    // === Functions ===

    fn call(&mut self, name: &str) -> Result<Term, Refusal> {
        let start = self.place();
        let Some((_, count, function)) = FUNCTIONS.iter().find(|(known, _, _)| *known == name)
        else {
            return Err(self.refuse(unknown(name)));
        };
        self.at += 1;
        self.expect("(")?;
        self.enter()?;
        let (mut arguments, mut places) = (Vec::new(), Vec::new());
        while !self.sign(")") {
            if !arguments.is_empty() {
                self.expect(",")?;
            }
            places.push(self.place());
            arguments.push(self.sum()?.value()?);
            if matches!(self.peek(), Kind::Sign("=")) {
                return Err(self.refuse("named arguments are not supported: leave the name out"));
            }
        }
        self.depth -= 1;
        if arguments.len() != *count {
            let message = format!("{name} takes {count} arguments, not {}", arguments.len());
            return Err(Refusal::new(start, message));
        }
        match function {
            Some(Function::IsMatch) => self.pattern(arguments, &places),
            Some(Function::Concat) if !matches!(arguments.first(), Some(Term::List(_))) => {
                let at = places.first().copied().unwrap_or(start);
                Err(Refusal::new(at, "Concat joins a list, such as [name, \"x\"]"))
            }
            Some(function) => {
                Ok(Term::Call(Box::new(Call { function: *function, arguments, pattern: None })))
            }
            None => folded(name, arguments, (start, &places)),
        }
    }

    fn pattern(&self, mut arguments: Vec<Term>, places: &[usize]) -> Result<Term, Refusal> {
        let at = places.last().copied().unwrap_or_default();
        let Some(Term::Text(text)) = arguments.pop() else {
            return Err(Refusal::new(at, "the pattern of IsMatch must be a text in double quotes"));
        };
        let compiled = pattern::one(&text, self.pattern_bytes);
        let pattern = Some(compiled.map_err(|error| Refusal::new(at, error.to_string()))?);
        Ok(Term::Call(Box::new(Call { function: Function::IsMatch, arguments, pattern })))
    }
}

fn unknown(name: &str) -> String {
    let near = FUNCTIONS.iter().find(|(known, _, _)| known.eq_ignore_ascii_case(name));
    match near {
        Some((known, _, _)) => format!("no function is called {name}; did you mean {known}?"),
        None => format!("the function {name} is not supported; known ones are {}", names()),
    }
}

/// What a function of literals comes to.
fn folded(
    name: &str,
    mut arguments: Vec<Term>,
    (start, places): (usize, &[usize]),
) -> Result<Term, Refusal> {
    let at = places.last().copied().unwrap_or(start);
    match (name, arguments.pop()) {
        ("Duration", Some(Term::Text(text))) => match duration::parse(&text) {
            Some(nanoseconds) => Ok(Term::Duration(nanoseconds)),
            None => Err(Refusal::new(at, "is no duration; write one such as \"1s\" or \"1m30s\"")),
        },
        ("Duration", _) => Err(Refusal::new(at, "Duration needs a text, such as \"500ms\"")),
        ("ConvertCase", Some(Term::Text(case))) if case == "lower" || case == "upper" => {
            let upper = case == "upper";
            let function = if upper { Function::ConvertToUpper } else { Function::ConvertToLower };
            Ok(Term::Call(Box::new(Call { function, arguments, pattern: None })))
        }
        ("ConvertCase", _) => {
            Err(Refusal::new(at, "ConvertCase converts to \"lower\" or \"upper\" here"))
        }
        ("SpanID", Some(id)) => match id_bytes(id) {
            Some(id) => Ok(Term::SpanId(id)),
            None => {
                Err(Refusal::new(at, "SpanID needs 16 hexadecimal digits, after 0x or in quotes"))
            }
        },
        ("TraceID", Some(id)) => match id_bytes(id) {
            Some(id) => Ok(Term::TraceId(id)),
            None => {
                Err(Refusal::new(at, "TraceID needs 32 hexadecimal digits, after 0x or in quotes"))
            }
        },
        _ => Err(Refusal::new(start, unknown(name))),
    }
}

/// An ID that is written as bytes or as a text of hexadecimal digits.
fn id_bytes<const N: usize>(term: Term) -> Option<[u8; N]> {
    match term {
        Term::Bytes(bytes) => bytes.try_into().ok(),
        Term::Text(text) => super::token::hex(text.as_bytes())?.try_into().ok(),
        _ => None,
    }
}
