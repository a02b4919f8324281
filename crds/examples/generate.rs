//! Writes the files that are made from the types.
fn main() {
    print!(
        "{}",
        serde_saphyr::to_string(&ringtail_crds::schema::definition()).unwrap()
    );
}
