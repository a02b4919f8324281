//! Hashes, thresholds and verdicts of the OpenTelemetry Collector.

use super::*;

const IDS: [(u128, u64); 4] = [
    (0x0000_0000_0000_0000_0000_0000_0000_0001, 16_254_957_729_900_898_954),
    (0x0102_0304_0506_0708_090a_0b0c_0d0e_0f10, 15_838_989_281_584_434_349),
    (0x4bf9_2f35_77b3_4da6_a3ce_929d_0e0e_4736, 11_908_981_664_384_643_253),
    (0xffff_ffff_ffff_ffff_ffff_ffff_ffff_ffff, 1_711_019_809_656_077_869),
];

#[test]
fn hashes_are_the_collectors() {
    for (id, expected) in IDS {
        let state = Probability::new(1.0, "").state;
        assert_eq!(fnv1a(state, &id.to_be_bytes()), expected, "{id:032x}");
    }
}

#[test]
fn thresholds_are_the_collectors() {
    let cases = [
        (0.1, 18_446_744_073_709_551),
        (1.0, 184_467_440_737_095_519),
        (10.0, 1_844_674_407_370_955_263),
        (33.3, 6_142_765_776_545_279_999),
        (50.0, 9_223_372_036_854_775_807),
        (99.9, 18_428_297_329_635_844_095),
        // Beyond the published ones: from the same arithmetic run in Go.
        (12.5, 2_305_843_009_213_693_951),
        (25.0, 4_611_686_018_427_387_903),
        (55.5, 10_237_942_960_908_802_047),
        (66.67, 12_298_444_273_942_159_359),
        (99.999_999, 18_446_743_889_242_111_999),
        (7.77, 1_433_312_014_527_231_999),
        (3.333_333_333_3, 614_891_469_117_502_847),
        (0.3, 55_340_232_221_128_655),
        (0.001, 184_467_440_737_095),
        (0.000_001, 184_467_440_737),
        (1e-9, 184_467_440),
        (1e-17, 1),
        (1e-19, 0),
        (100.0, u64::MAX),
        (250.0, u64::MAX),
        (0.0, 0),
        (-1.0, 0),
        (f64::NAN, 0),
        (f64::MIN_POSITIVE, 0),
        (5e-324, 0),
    ];
    for (percentage, expected) in cases {
        assert_eq!(threshold(percentage), expected, "{percentage} %");
    }
}

#[test]
fn thresholds_grow_with_the_percentage() {
    let mut last = 0;
    for step in 0..=100_000_u32 {
        let threshold = threshold(f64::from(step) / 1000.0);
        assert!(threshold >= last, "{step}");
        last = threshold;
    }
}

#[test]
fn a_trace_is_kept_up_to_the_threshold_and_it_included() {
    // Shares of 2^64 of the hashes above: 0.881183, 0.858633, 0.645587, 0.092755.
    let cases = [
        (100.0, [true, true, true, true]),
        (88.2, [true, true, true, true]),
        (88.1, [false, true, true, true]),
        (85.8, [false, false, true, true]),
        (64.6, [false, false, true, true]),
        (64.5, [false, false, false, true]),
        (9.28, [false, false, false, true]),
        (9.27, [false, false, false, false]),
        (0.0, [false, false, false, false]),
    ];
    for (percentage, expected) in cases {
        let kept = IDS.map(|(id, _)| {
            Probability::new(percentage, "").keeps(&TraceFacts::new(id.to_be_bytes()))
        });
        assert_eq!(kept, expected, "{percentage} %");
    }
    let (id, hash) = IDS[0];
    let exact = Probability { threshold: hash, ..Probability::new(1.0, "") };
    assert!(exact.keeps(&TraceFacts::new(id.to_be_bytes())));
    assert!(
        !Probability { threshold: hash - 1, ..exact }.keeps(&TraceFacts::new(id.to_be_bytes()))
    );
}

#[test]
fn an_empty_salt_is_the_default_one_and_others_differ() {
    assert_eq!(Probability::new(5.0, ""), Probability::new(5.0, "default-hash-seed"));
    assert_ne!(Probability::new(5.0, "").state, Probability::new(5.0, "x").state);
}

#[test]
fn the_share_that_is_kept_is_the_percentage() {
    let tenth = Probability::new(10.0, "");
    let kept = (0..100_000_u64)
        .filter(|n| {
            let mut id = [7; 16];
            id[..8].copy_from_slice(&crate::key::mix(*n).to_le_bytes());
            tenth.keeps(&TraceFacts::new(id))
        })
        .count();
    assert!((9_700..10_300).contains(&kept), "{kept} of 100000");
}
