//! Tests of the offline check.

use super::*;

const SHOP: &str = include_str!("../../../examples/shop.yaml");

#[test]
fn the_examples_are_valid() {
    for text in [SHOP, include_str!("../../../examples/minimal.yaml")] {
        validate(text).unwrap();
    }
}
