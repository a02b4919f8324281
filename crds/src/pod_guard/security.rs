//! Security contexts, of pods and of containers: what breaks the restricted profile.

use serde_json::{Map, Value};

use super::Refusals;
use crate::path::Path;

/// Kernel settings that belong to the pod alone, as the profiles of pod security list them.
const SAFE_SYSCTLS: [&str; 10] = [
    "kernel.shm_rmid_forced",
    "net.ipv4.ip_local_port_range",
    "net.ipv4.ip_local_reserved_ports",
    "net.ipv4.ip_unprivileged_port_start",
    "net.ipv4.ping_group_range",
    "net.ipv4.tcp_fin_timeout",
    "net.ipv4.tcp_keepalive_intvl",
    "net.ipv4.tcp_keepalive_probes",
    "net.ipv4.tcp_keepalive_time",
    "net.ipv4.tcp_syncookies",
];
/// SELinux types of confined containers.
const CONFINED_TYPES: [&str; 5] =
    ["", "container_t", "container_init_t", "container_kvm_t", "container_engine_t"];
/// The one capability that the restricted profile lets a container add.
const FREE_CAPABILITY: &str = "NET_BIND_SERVICE";

/// Fields that cannot do harm.
pub(super) const ALLOWED: [&str; 7] = [
    "fsGroup",
    "fsGroupChangePolicy",
    "readOnlyRootFilesystem",
    "runAsGroup",
    "seLinuxChangePolicy",
    "supplementalGroups",
    "supplementalGroupsPolicy",
];

/// Adds a refusal for everything in a security context that breaks the restricted profile.
pub(super) fn check(context: &Value, at: &Path, refusals: &mut Refusals) {
    for (name, value) in context.as_object().into_iter().flatten() {
        if let Some((place, told)) = refuse(name, value) {
            refusals.push((at.key(name).join(place), told.to_owned()));
        }
    }
}

/// What is wrong with a field, and where below it.
pub(super) fn refuse(name: &str, value: &Value) -> Option<(&'static str, &'static str)> {
    let refused = |is_wrong: bool, told| is_wrong.then_some(("", told));
    match name {
        "privileged" => refused(*value != false, "gives the container the node"),
        "allowPrivilegeEscalation" => {
            refused(*value != false, "lets a process gain more rights than its parent")
        }
        "runAsNonRoot" => refused(*value != true, "must stay true: the pods run without root"),
        "runAsUser" => refused(*value == 0, "is root: use any other user"),
        "capabilities" => capabilities(value),
        "seccompProfile" | "appArmorProfile" => {
            let unconfined = value.get("type").is_some_and(|kind| kind == "Unconfined");
            unconfined.then_some(("type", "lifts the limits on system calls and files"))
        }
        "procMount" => refused(value != "Default", "shows parts of /proc that runtimes hide"),
        "seLinuxOptions" => se_linux(value),
        "windowsOptions" => {
            let host = value.get("hostProcess").is_some_and(|on| *on != false);
            host.then_some(("hostProcess", "gives the container the node"))
        }
        "sysctls" => refused(!sysctls_are_safe(value), "holds a kernel setting of the whole node"),
        _ if ALLOWED.contains(&name) => None,
        _ => Some(("", "is not known to be harmless in a security context")),
    }
}

fn capabilities(value: &Value) -> Option<(&'static str, &'static str)> {
    let added = value.get("add").and_then(Value::as_array).into_iter().flatten();
    let too_many = added.into_iter().any(|name| name != FREE_CAPABILITY);
    too_many.then_some(("add", "adds rights beyond NET_BIND_SERVICE, which is the only free one"))
}

fn se_linux(value: &Value) -> Option<(&'static str, &'static str)> {
    let set = |options: &Map<String, Value>, name: &str| {
        options.get(name).is_some_and(|value| value != "")
    };
    let options = value.as_object()?;
    if set(options, "user") || set(options, "role") {
        return Some(("", "must not set user or role: they are the node's"));
    }
    let kind = options.get("type")?;
    let confined = CONFINED_TYPES.iter().any(|allowed| kind == allowed);
    (!confined).then_some(("type", "is no type of confined containers, such as container_t"))
}

fn sysctls_are_safe(value: &Value) -> bool {
    let mut names = value.as_array().into_iter().flatten().map(|entry| entry.get("name"));
    names.all(|name| {
        let name = name.and_then(Value::as_str);
        name.is_some_and(|name| SAFE_SYSCTLS.contains(&name))
    })
}
