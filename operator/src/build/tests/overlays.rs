//! `podTemplate`: merged as kubectl merges, and never in the way of what the operator counts on.

use super::{super::overlay::merge, *};

#[test]
fn maps_merge_by_key_and_lists_by_what_tells_their_entries_apart() {
    // Base, overlay, result.
    let cases = [
        (json!({"a": 1, "b": 2}), json!({"b": 3, "c": 4}), json!({"a": 1, "b": 3, "c": 4})),
        (json!({"a": {"b": 1}}), json!({"a": {"c": null, "b": null}}), json!({"a": {"b": 1}})),
        (json!({}), json!({"a": {"b": null, "c": [{"d": null}]}}), json!({"a": {"c": [{}]}})),
        (json!({"args": ["a", "b"]}), json!({"args": ["c"]}), json!({"args": ["c"]})),
        (
            json!({"env": [{"name": "A", "value": "1"}, {"name": "B", "value": "2"}]}),
            json!({"env": [{"name": "B", "value": "3"}, {"name": "C", "value": "4"}]}),
            json!({"env": [
                {"name": "A", "value": "1"}, {"name": "B", "value": "3"}, {"name": "C", "value": "4"},
            ]}),
        ),
        (
            json!({"volumeMounts": [{"mountPath": "/a", "name": "a"}]}),
            json!({"volumeMounts": [{"mountPath": "/a", "subPath": "b"}]}),
            json!({"volumeMounts": [{"mountPath": "/a", "name": "a", "subPath": "b"}]}),
        ),
        // Entries that nothing tells apart are all kept.
        (
            json!({"containers": [{"image": "a"}]}),
            json!({"containers": [{"image": "b"}]}),
            json!({"containers": [{"image": "a"}, {"image": "b"}]}),
        ),
        // What does not fit stays as it was.
        (json!({"a": [1]}), json!({"a": 2}), json!({"a": [1]})),
        (json!({"a": {"b": 1}}), json!({"a": "c"}), json!({"a": {"b": 1}})),
        (json!({"a": "b"}), json!({"a": {"c": 1}}), json!({"a": "b"})),
    ];
    for (base, overlay, expected) in cases {
        let mut merged = base.clone();
        merge(&mut merged, &overlay);
        assert_eq!(merged, expected, "{base} with {overlay}");
    }
}

#[test]
fn labels_of_the_operator_outlast_an_overlay() {
    let mut scene = Scene::new(include_str!("pipelines/minimal.yaml"));
    let overlay = json!({"metadata": {
        "labels": {labels::PIPELINE: "other", labels::COMPONENT: "other", "mine": "1"},
        "annotations": {labels::CONFIG_HASH: "none", "mine": "2"},
    }});
    let built = scene.child(Kind::DaemonSet, "shop-agent").unwrap();
    scene.pipeline.spec.agent.pod.pod_template = overlay.as_object().cloned();
    let merged = scene.child(Kind::DaemonSet, "shop-agent").unwrap();
    let metadata = |child: &Value| child["spec"]["template"]["metadata"].clone();
    let mut expected = metadata(&built);
    expected["labels"]["mine"] = "1".into();
    expected["annotations"]["mine"] = "2".into();
    assert_eq!(metadata(&merged), expected);
}
