//! The code generated from our protobuf definitions is current.

use std::path::Path;

#[test]
fn peer_messages_are_current() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let definitions =
        protox::compile(["ringtail/peer/v1/peer.proto"], [root.join("dataplane/proto")])
            .expect("the definitions compile");
    let out = tempfile::tempdir().unwrap();
    prost_build::Config::new()
        .bytes(["."])
        .out_dir(out.path())
        .compile_fds(definitions)
        .expect("code is generated");
    let fresh = std::fs::read_to_string(out.path().join("ringtail.peer.v1.rs")).unwrap();
    let committed = root.join("dataplane/src/peer/generated.rs");
    if std::env::var_os("RINGTAIL_GENERATE").is_some() {
        std::fs::write(&committed, &fresh).unwrap();
    }
    let current = std::fs::read_to_string(&committed).unwrap();
    assert!(current == fresh, "{} is out of date: run `make generate`", committed.display());
}
