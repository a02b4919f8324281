//! Facts about where an agent runs, for resources that do not say.

use ringtail_crds::processing::Detector;

/// Attributes that are taken from the environment: as much as a resource may have is 256 KiB, and nobody
/// writes a hundred.
const ENVIRONMENT_BYTES_MAX: usize = 16 << 10;

/// For whom an agent knows where it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// For every pod of its node.
    Node,
    /// For the pod in which it is a sidecar.
    Pod,
}

/// Attributes with their values, the first detector's first, each key once. `variable` reads a variable of
/// the environment; `host` is the name of the host.
pub(super) fn detect(
    detectors: &[Detector],
    place: Place,
    variable: &dyn Fn(&str) -> Option<String>,
    host: &str,
) -> Vec<(String, String)> {
    let mut facts: Vec<(String, String)> = Vec::new();
    for detector in detectors {
        let found = match detector {
            Detector::Environment => of_environment(variable),
            Detector::Host => of_host(variable, host),
            Detector::Kubernetes => of_kubernetes(place, variable),
        };
        for (key, value) in found {
            if !value.is_empty() && !facts.iter().any(|(known, _)| *known == key) {
                facts.push((key, value));
            }
        }
    }
    facts
}

fn of_environment(variable: &dyn Fn(&str) -> Option<String>) -> Vec<(String, String)> {
    // As in SDKs, the name goes before the one among the attributes.
    let name = variable("OTEL_SERVICE_NAME").map(|name| ("service.name".to_owned(), name));
    let listed = variable("OTEL_RESOURCE_ATTRIBUTES").unwrap_or_default();
    let parsed = parse(&listed);
    if parsed.is_none() {
        // As the specification says: nobody knows what is meant by the rest.
        tracing::warn!("OTEL_RESOURCE_ATTRIBUTES is no list of key=value and is not used");
    }
    name.into_iter().chain(parsed.unwrap_or_default()).collect()
}

/// Pairs with commas in between; values, and keys, may be percent-encoded.
fn parse(listed: &str) -> Option<Vec<(String, String)>> {
    if listed.len() > ENVIRONMENT_BYTES_MAX {
        return None;
    }
    let pairs = listed.split(',').map(str::trim).filter(|pair| !pair.is_empty());
    pairs
        .map(|pair| {
            let (key, value) = pair.split_once('=')?;
            let key = decode(key.trim())?;
            (!key.is_empty()).then_some((key, decode(value.trim())?))
        })
        .collect()
}

fn decode(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, after @ ..] = rest {
        if *first != b'%' {
            bytes.push(*first);
            rest = after;
            continue;
        }
        let digits = std::str::from_utf8(after.get(..2)?).ok()?;
        // The parser of numbers would take a sign.
        if !digits.bytes().all(|digit| digit.is_ascii_hexdigit()) {
            return None;
        }
        bytes.push(u8::from_str_radix(digits, 16).ok()?);
        rest = after.get(2..)?;
    }
    String::from_utf8(bytes).ok()
}

fn of_host(variable: &dyn Fn(&str) -> Option<String>, host: &str) -> Vec<(String, String)> {
    // In a container the host's name is the pod's; the node's is what people look for.
    let name = variable("NODE_NAME").unwrap_or_else(|| host.to_owned());
    let arch = match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    };
    let pairs = [("host.name", name.as_str()), ("host.arch", arch), ("os.type", "linux")];
    pairs.map(|(key, value)| (key.to_owned(), value.to_owned())).into()
}

/// The pod and the namespace of an agent are only those of the spans' sender when it is a sidecar.
fn of_kubernetes(place: Place, variable: &dyn Fn(&str) -> Option<String>) -> Vec<(String, String)> {
    let node = [("k8s.node.name", "NODE_NAME")];
    let pod = [("k8s.pod.name", "POD_NAME"), ("k8s.namespace.name", "POD_NAMESPACE")];
    let of_pod = pod.into_iter().filter(|_| place == Place::Pod);
    let known = node.into_iter().chain(of_pod);
    known.filter_map(|(key, name)| Some((key.to_owned(), variable(name)?))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn detected(detectors: &[Detector], place: Place, variables: &[(&str, &str)]) -> String {
        let variable = |wanted: &str| {
            let found = variables.iter().find(|(name, _)| *name == wanted);
            found.map(|(_, value)| (*value).to_owned())
        };
        let facts = detect(detectors, place, &variable, "pod-7");
        let arch = if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" };
        let pairs: Vec<String> =
            facts.iter().map(|(key, value)| format!("{key}={value}")).collect();
        pairs.join(" ").replace(arch, "ARCH")
    }

    #[test]
    fn facts_come_from_where_the_manifest_says() {
        use Detector::{Environment, Host, Kubernetes};
        let pod = [("NODE_NAME", "n1"), ("POD_NAME", "p1"), ("POD_NAMESPACE", "shop")];
        let own = [
            ("OTEL_RESOURCE_ATTRIBUTES", "service.name=b, deployment.environment = a%2Cb%20c ,x=,"),
            ("OTEL_SERVICE_NAME", "a"),
            ("NODE_NAME", "n1"),
        ];
        type Case<'a> = (&'a [Detector], Place, &'a [(&'a str, &'a str)], &'a str);
        let cases: [Case<'_>; 7] = [
            (&[], Place::Node, &own, ""),
            (&[Environment], Place::Node, &own, "service.name=a deployment.environment=a,b c"),
            (&[Host], Place::Node, &own, "host.name=n1 host.arch=ARCH os.type=linux"),
            (&[Host], Place::Node, &[], "host.name=pod-7 host.arch=ARCH os.type=linux"),
            (&[Kubernetes], Place::Node, &pod, "k8s.node.name=n1"),
            (
                &[Kubernetes],
                Place::Pod,
                &pod,
                "k8s.node.name=n1 k8s.pod.name=p1 k8s.namespace.name=shop",
            ),
            (&[Kubernetes], Place::Pod, &[], ""),
        ];
        for (detectors, place, variables, expected) in cases {
            let found = detected(detectors, place, variables);
            assert_eq!(found, expected, "{detectors:?} {place:?}");
        }
        let first = [("OTEL_RESOURCE_ATTRIBUTES", "host.name=mine"), ("NODE_NAME", "n1")];
        let found = detected(&[Environment, Host], Place::Node, &first);
        assert_eq!(found, "host.name=mine host.arch=ARCH os.type=linux");
    }

    #[test]
    fn a_list_that_cannot_be_read_is_left_alone_as_a_whole() {
        for listed in ["a", "a=1,b", "a=%2", "a=%zz", "a=%+1", "=1", "a=%ff", &"a=1,".repeat(5000)]
        {
            assert_eq!(parse(listed), None, "{listed:.40}");
        }
    }
}
