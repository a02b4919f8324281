//! Keys, seeds and shards against values from an independent implementation (a SipHash-1-3 in Python).

use super::*;

const SEED: KeySeed = KeySeed::new([0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15]);

/// Trace ID, its key under [`SEED`], its shard of 2, 3 and 8.
const GOLDEN: [(u128, u64, [u32; 3]); 6] = [
    (0x0000_0000_0000_0000_0000_0000_0000_0001, 0xd361_5916_76c8_faef, [1, 1, 5]),
    (0x0102_0304_0506_0708_090a_0b0c_0d0e_0f10, 0x58c0_fcc9_139e_ff77, [0, 0, 0]),
    (0x4bf9_2f35_77b3_4da6_a3ce_929d_0e0e_4736, 0x34d5_bee1_7824_5280, [0, 0, 2]),
    (0xffff_ffff_ffff_ffff_ffff_ffff_ffff_ffff, 0x04c3_a2db_3412_81ec, [0, 0, 1]),
    (0x5b8e_fff7_9803_8103_d269_b633_813f_c60c, 0x2aa8_7f1f_f118_401c, [1, 1, 4]),
    (0x0af7_6519_16cd_43dd_8448_eb21_1c80_319c, 0xac0d_8e3c_815f_15d8, [0, 0, 0]),
];

#[test]
fn keys_and_shards_are_the_recorded_ones() {
    for (id, key, shards) in GOLDEN {
        let got = SEED.key(&id.to_be_bytes());
        assert_eq!(got, TraceKey(key), "{id:032x}");
        assert_eq!([2, 3, 8].map(|n| shard_of(got, n)), shards, "{id:032x}");
    }
}

#[test]
fn the_seed_shows_its_id_and_nothing_else() {
    assert_eq!(SEED.id(), 0xad84_167b_7b50_07ae);
    assert_eq!(format!("{SEED:?}"), "KeySeed(id ad84167b7b5007ae)");
}

#[test]
fn seeds_are_read_from_hexadecimal() {
    assert_eq!(KeySeed::from_hex("000102030405060708090a0b0c0d0e0f"), Ok(SEED));
    assert_eq!(KeySeed::from_hex(" 000102030405060708090A0B0C0D0E0F\n"), Ok(SEED));
    for bad in
        ["", "00", "000102030405060708090a0b0c0d0e0g", "000102030405060708090a0b0c0d0e0f00", "ää"]
    {
        let error = KeySeed::from_hex(bad).unwrap_err();
        assert_eq!(error.length, bad.len(), "{bad:?}");
    }
    // 32 bytes that are not 32 characters must not be cut inside one.
    assert!(KeySeed::from_hex("ääääääääääääääää").is_err());
}

#[test]
fn a_shard_is_always_one_that_exists() {
    for shards in [0, 1, 2, 3, 7, 64, u32::MAX] {
        for key in [0, 1, u64::MAX, SHARD_SALT, !SHARD_SALT] {
            let shard = shard_of(TraceKey(key), shards);
            assert!(shard < shards.max(1), "{key} of {shards}: {shard}");
        }
    }
}
