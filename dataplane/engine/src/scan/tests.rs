//! Hazards of the wire format, one test each.
