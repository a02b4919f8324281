//! Policies as data: what a manifest says, with durations in milliseconds and names not yet resolved.

/// One named policy of a list; the list's order is the order in which decisions are attributed.
#[derive(Debug, Clone, PartialEq)]
pub struct Policy {
    /// Unique in its list; containers and metrics use it.
    pub name: String,
    /// Whether the policy speaks for itself or only inside a container.
    pub role: Role,
    /// What it says about a trace.
    pub rule: Rule,
}

/// What a policy's answer is used for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Role {
    /// Its yes keeps the trace (or, for [`Rule::Drop`], drops it). Containers may name it as well.
    #[default]
    Vote,
    /// Its answer is used only by the containers that name it.
    Part,
    /// It is counted what its vote would change, and nothing is changed. Containers may name it as well.
    Shadow,
}

/// The question a policy asks of a whole trace.
#[derive(Debug, Clone, PartialEq)]
pub enum Rule {
    /// Always yes.
    AlwaysSample,
    /// Does any span have one of these status codes?
    StatusCode {
        /// At least one.
        codes: Vec<Status>,
    },
    /// Is the time from the first start to the last end more than `threshold_ms` (exclusive) and at most
    /// `upper_threshold_ms` (inclusive)? The duration is truncated to whole milliseconds first.
    Latency {
        /// Exclusive lower bound.
        threshold_ms: u64,
        /// Inclusive upper bound; `None` means none.
        upper_threshold_ms: Option<u64>,
    },
    /// Does the hash of salt and trace ID fall into the lowest part of its range?
    Probabilistic {
        /// From 0 to 100.
        sampling_percentage: f64,
        /// Empty means the Collector's default salt, so that verdicts agree with a Collector's.
        hash_salt: String,
    },
    /// Does the resource or any span have the attribute with one of these strings?
    StringAttribute {
        /// The attribute's key.
        key: String,
        /// Whole values, or regular expressions that are searched for anywhere in the value.
        values: Vec<String>,
        /// Whether `values` are regular expressions.
        regex: bool,
        /// Yes becomes no and no becomes yes, for the whole trace.
        invert_match: bool,
    },
    /// Does the resource or any span have the attribute with an integer in this range?
    NumericAttribute {
        /// The attribute's key.
        key: String,
        /// Inclusive; `None` means unbounded.
        min_value: Option<i64>,
        /// Inclusive; `None` means unbounded.
        max_value: Option<i64>,
        /// Yes becomes no and no becomes yes, for the whole trace.
        invert_match: bool,
    },
    /// Does the resource or any span have the attribute with this bool?
    BooleanAttribute {
        /// The attribute's key.
        key: String,
        /// The value that matches.
        value: bool,
        /// Yes becomes no and no becomes yes, for the whole trace.
        invert_match: bool,
    },
    /// Does the trace have so many spans?
    SpanCount {
        /// Inclusive; `None` means unbounded.
        min_spans: Option<u32>,
        /// Inclusive; `None` means unbounded.
        max_spans: Option<u32>,
    },
    /// Does any span's W3C trace state have the key with one of these values?
    TraceState {
        /// The key of a list member.
        key: String,
        /// Whole values.
        values: Vec<String>,
    },
    /// Does any span have the W3C trace flag "sampled"?
    TraceFlags,
    /// Does any condition hold for any span, or for any event of a span? Written in OTTL.
    OttlCondition {
        /// Conditions on spans.
        span: Vec<String>,
        /// Conditions on events of spans.
        span_event: Vec<String>,
        /// What becomes of a condition that asks what a value cannot answer.
        error_mode: ErrorMode,
    },
    /// Is there room for the trace's spans in a budget of the fleet?
    RateLimiting {
        /// What a second brings; above 0.
        spans_per_second: u64,
        /// How much can be saved up; `None` means twice the rate, as in the Collector.
        burst_capacity: Option<u64>,
    },
    /// Is there room for the bytes of the trace's spans in a budget of the fleet?
    BytesLimiting {
        /// What a second brings; above 0.
        bytes_per_second: u64,
        /// How much can be saved up; `None` means twice the rate, as in the Collector.
        burst_capacity: Option<u64>,
    },
    /// Does a part say yes that has its share of a budget of the fleet left, or can borrow from the others?
    Composite {
        /// What a second brings to all parts together; above 0.
        max_total_spans_per_second: u64,
        /// The parts; at least one.
        sub_policies: Vec<SubPolicy>,
        /// The names of the parts in the order in which they are asked; empty means that of `sub_policies`.
        policy_order: Vec<String>,
    },
    /// Do all the named policies say yes?
    And {
        /// Names of other policies, of either role.
        policies: Vec<String>,
    },
    /// Does at least one of the named policies say yes?
    Or {
        /// Names of other policies, of either role.
        policies: Vec<String>,
    },
    /// Does the named policy say no?
    Not {
        /// Name of another policy, of either role.
        policy: String,
    },
    /// When all the named policies say yes, the trace is dropped, whatever the others say.
    Drop {
        /// Names of other policies, of either role.
        policies: Vec<String>,
    },
}

/// A part of a [`Rule::Composite`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SubPolicy {
    /// Name of another policy, of either role.
    pub policy: String,
    /// From 1 to 100; `None` means an equal part of what the others leave.
    pub rate_allocation_percent: Option<u32>,
}

/// What becomes of a condition that asks what a value cannot answer, such as the prefix of a number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ErrorMode {
    /// It does not hold for this span.
    #[default]
    Silent,
    /// The same, and it is counted.
    Ignore,
    /// The policy says no to the whole trace, and it is counted.
    Propagate,
}

/// The status of a span.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Status {
    /// Code 0, also when the span carries no status at all.
    Unset,
    /// Code 1.
    Ok,
    /// Code 2.
    Error,
}

impl Status {
    /// The bit of this status in `SpanFacts::statuses` and
    /// `TraceFacts::statuses`: bit n stands for code n.
    pub const fn bit(self) -> u8 {
        match self {
            Self::Unset => 1,
            Self::Ok => 1 << 1,
            Self::Error => 1 << 2,
        }
    }
}

/// Something that keeps a list of policies from being compiled.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Which policy, by its place in the list; `None` when the list as a whole is wrong.
    pub policy: Option<usize>,
    /// Where in the policy, spelled as in a manifest, for example `stringAttribute.values[1]`; empty for the
    /// policy as a whole.
    pub field: String,
    /// What is wrong and what to do about it.
    pub message: String,
}

impl Problem {
    /// The place as a path from the object that holds the list, for example
    /// `policies[3].stringAttribute.values[1]`.
    pub fn path(&self) -> String {
        match (self.policy, self.field.as_str()) {
            (None, _) => "policies".to_owned(),
            (Some(index), "") => format!("policies[{index}]"),
            (Some(index), field) => format!("policies[{index}].{field}"),
        }
    }
}

impl std::fmt::Display for Problem {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", self.path(), self.message)
    }
}
