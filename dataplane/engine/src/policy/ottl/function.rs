//! The functions that conditions may call, and what they may be called with.

/// A function of OTTL.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in super::super) enum Function {
    Concat,
    ContainsValue,
    ConvertToLower,
    ConvertToUpper,
    Double,
    HasPrefix,
    HasSuffix,
    Hours,
    Int,
    IsBool,
    IsDouble,
    IsInt,
    IsList,
    IsMap,
    IsMatch,
    IsRootSpan,
    IsString,
    Len,
    Microseconds,
    Milliseconds,
    Minutes,
    Nanoseconds,
    Seconds,
    String,
    Substring,
}

/// A function by its name in a condition, with the number of its arguments. Those whose arguments are
/// literals have no [`Function`]: what they come to is known when the condition is read.
pub(super) const FUNCTIONS: [(&str, usize, Option<Function>); 29] = [
    ("Concat", 2, Some(Function::Concat)),
    ("ContainsValue", 2, Some(Function::ContainsValue)),
    ("ConvertCase", 2, None),
    ("Double", 1, Some(Function::Double)),
    ("Duration", 1, None),
    ("HasPrefix", 2, Some(Function::HasPrefix)),
    ("HasSuffix", 2, Some(Function::HasSuffix)),
    ("Hours", 1, Some(Function::Hours)),
    ("Int", 1, Some(Function::Int)),
    ("IsBool", 1, Some(Function::IsBool)),
    ("IsDouble", 1, Some(Function::IsDouble)),
    ("IsInt", 1, Some(Function::IsInt)),
    ("IsList", 1, Some(Function::IsList)),
    ("IsMap", 1, Some(Function::IsMap)),
    ("IsMatch", 2, Some(Function::IsMatch)),
    ("IsRootSpan", 0, Some(Function::IsRootSpan)),
    ("IsString", 1, Some(Function::IsString)),
    ("Len", 1, Some(Function::Len)),
    ("Microseconds", 1, Some(Function::Microseconds)),
    ("Milliseconds", 1, Some(Function::Milliseconds)),
    ("Minutes", 1, Some(Function::Minutes)),
    ("Nanoseconds", 1, Some(Function::Nanoseconds)),
    ("Seconds", 1, Some(Function::Seconds)),
    ("SpanID", 1, None),
    ("String", 1, Some(Function::String)),
    ("Substring", 3, Some(Function::Substring)),
    ("ToLowerCase", 1, Some(Function::ConvertToLower)),
    ("ToUpperCase", 1, Some(Function::ConvertToUpper)),
    ("TraceID", 1, None),
];

impl Function {
    /// Whether its value is a bool.
    pub(super) fn is_question(self) -> bool {
        matches!(
            self,
            Self::ContainsValue
                | Self::HasPrefix
                | Self::HasSuffix
                | Self::IsBool
                | Self::IsDouble
                | Self::IsInt
                | Self::IsList
                | Self::IsMap
                | Self::IsMatch
                | Self::IsRootSpan
                | Self::IsString
        )
    }
}

/// All names, for messages.
pub(super) fn names() -> String {
    FUNCTIONS.iter().map(|(name, _, _)| *name).collect::<Vec<_>>().join(", ")
}

/// The names that OTTL has for numbers.
pub(super) const ENUMS: [(&str, i64); 9] = [
    ("SPAN_KIND_UNSPECIFIED", 0),
    ("SPAN_KIND_INTERNAL", 1),
    ("SPAN_KIND_SERVER", 2),
    ("SPAN_KIND_CLIENT", 3),
    ("SPAN_KIND_PRODUCER", 4),
    ("SPAN_KIND_CONSUMER", 5),
    ("STATUS_CODE_UNSET", 0),
    ("STATUS_CODE_OK", 1),
    ("STATUS_CODE_ERROR", 2),
];
