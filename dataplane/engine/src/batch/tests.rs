//! Batches: what merges, what keeps its order, and what they cost.

use super::*;
use crate::scan::Headers;

fn headers(text: &str) -> Headers<'_> {
    Headers::whole(text.as_bytes())
}

fn encoded(batch: &Batch) -> Vec<u8> {
    let mut out = Vec::new();
    batch.encode(&mut out);
    assert_eq!(out.len(), batch.encoded_len());
    assert!(out.len() <= batch.encoded_len_max());
    out
}

#[test]
fn equal_resources_of_two_requests_merge_into_one() {
    let mut batch = Batch::new();
    for span in [b"1", b"2"] {
        let group = batch.intern(&headers("R"), &headers("S"));
        batch.push(group, span);
        let group = batch.intern(&headers("R"), &headers("T"));
        batch.push(group, span);
    }
    assert_eq!(encoded(&batch), b"\x0a\x13R\x12\x07S\x12\x011\x12\x012\x12\x07T\x12\x011\x12\x012");
}

#[test]
fn a_scope_under_another_resource_is_another_group() {
    let mut batch = Batch::new();
    let first = batch.intern(&headers("R"), &headers("S"));
    let second = batch.intern(&headers("Q"), &headers("S"));
    assert_ne!(first, second);
    batch.push(second, b"2");
    batch.push(first, b"1");
    assert_eq!(encoded(&batch), b"\x0a\x07R\x12\x04S\x12\x011\x0a\x07Q\x12\x04S\x12\x012");
}

#[test]
fn spans_of_a_group_keep_their_order() {
    let mut batch = Batch::new();
    let groups = ["A", "B", "C"].map(|scope| batch.intern(&headers("R"), &headers(scope)));
    for (index, span) in b"0123456789".iter().enumerate() {
        batch.push(groups[index * 7 % 3], &[*span]);
    }
    let digits: Vec<u8> = encoded(&batch).into_iter().filter(u8::is_ascii_digit).collect();
    assert_eq!(digits, b"0369147258");
}

#[test]
fn headers_and_spans_may_be_empty() {
    let mut batch = Batch::new();
    let group = batch.intern(&headers(""), &headers(""));
    batch.push(group, b"");
    assert_eq!((encoded(&batch), batch.spans()), (b"\x0a\x04\x12\x02\x12\x00".to_vec(), 1));
}

#[test]
fn loose_fields_go_along() {
    let mut batch = Batch::new();
    batch.push_loose(b"\x48\x01");
    assert!(batch.is_empty(), "they alone are no reason to send");
    let group = batch.intern(&headers(""), &headers(""));
    batch.push(group, b"");
    assert_eq!(encoded(&batch), b"\x48\x01\x0a\x04\x12\x02\x12\x00");
}

#[test]
fn distinct_resources_cost_a_bounded_multiple_and_are_let_go() {
    let mut batch = Batch::new();
    for round in 0..2 {
        for index in 0..200_000_u32 {
            let resource = index.to_be_bytes();
            let group = batch.intern(&Headers::whole(&resource), &headers(""));
            batch.push(group, b"span");
        }
        assert_eq!((batch.spans(), batch.resources.len()), (200_000, 200_000), "round {round}");
        assert_eq!(encoded(&batch).len(), 200_000 * (2 + 4 + 2 + 6));
        // Per span of a group of its own: a run, a group, a resource, two table slots, and what growing by
        // doubling spares.
        let entry = size_of::<Run>() + size_of::<Group>() + size_of::<Resource>() + 2 * 5 + 10;
        assert!(batch.held_bytes() < 200_000 * entry * 5 / 2, "{} bytes", batch.held_bytes());
        batch.clear();
        let entries = KEEP_ENTRIES * (entry + 2 * 5);
        let kept_max = KEEP_SPAN_BYTES + KEEP_HEADER_BYTES + entries;
        assert!(batch.held_bytes() <= kept_max, "{} > {kept_max}", batch.held_bytes());
    }
}

#[test]
fn a_cleared_batch_is_like_new_and_keeps_its_buffers() {
    let mut batch = Batch::new();
    let fill = |batch: &mut Batch| {
        for index in 0..1000_u32 {
            let resource = (index % 7).to_be_bytes();
            let group = batch.intern(&Headers::whole(&resource), &headers("S"));
            batch.push(group, &[1; 400]);
        }
        encoded(batch)
    };
    let first = fill(&mut batch);
    batch.push_loose(b"\x48\x01");
    batch.clear();
    assert_eq!((batch.spans(), batch.encoded_len(), batch.encoded_len_max()), (0, 0, 0));
    let held = batch.held_bytes();
    assert_eq!(fill(&mut batch), first);
    assert_eq!(batch.held_bytes(), held, "nothing was allocated again");
}

#[test]
fn an_outline_leads_into_the_buffer_that_is_given_away() {
    let mut batch = Batch::new();
    let groups = ["A", "B"].map(|scope| batch.intern(&headers("R"), &headers(scope)));
    let spans = [1, 127, 128, 300, 0x3fff, 0x4000].map(|len| vec![b'x'; len]);
    for (index, span) in spans.iter().enumerate() {
        batch.push(groups[index / 2 % 2], span);
    }
    let whole = encoded(&batch);
    assert_eq!(batch.runs(0), (3, spans.iter().map(|span| field_len(span.len())).sum()));
    assert_eq!(batch.runs(0x4000), (3, 0x4004 + 0x3fff + 3));
    let mut parts = Vec::new();
    batch.outline(|part| {
        parts.push(match part {
            Part::Head(bytes) => Err(bytes.to_vec()),
            Part::Spans(run) => Ok(run),
        });
    });
    let buffer = batch.detach();
    assert!(batch.is_empty() && batch.encoded_len() == 0);
    let told = parts.into_iter().flat_map(|part| match part {
        Err(bytes) => bytes,
        Ok(run) => buffer[run].to_vec(),
    });
    assert_eq!(told.collect::<Vec<u8>>(), whole);
    batch.attach(buffer);
    assert!(batch.is_empty() && batch.encoded_len() == 0 && batch.buffer_bytes() > 0x8000);
}
