//! Which fields of a pod are allowed at all, each list with what is said about the others.

use super::Refusals;
use crate::path::Path;

/// The fields of one kind of object.
pub(super) struct Surface {
    /// What `core/v1` calls the object.
    #[cfg(test)]
    pub(super) kind: &'static str,
    /// Fields that nothing has to be said about.
    pub(super) allowed: &'static [&'static str],
    /// Fields that are looked at more closely elsewhere.
    #[cfg(test)]
    pub(super) examined: &'static [&'static str],
    /// Fields that are refused, and why.
    pub(super) refused: &'static [(&'static str, &'static str)],
    /// What the others are.
    pub(super) otherwise: &'static str,
}

/// Adds a refusal for a field that is not allowed.
pub(super) fn check(surface: &Surface, field: &str, at: &Path, refusals: &mut Refusals) {
    if surface.allowed.contains(&field) {
        return;
    }
    let why = surface.refused.iter().find(|(name, _)| *name == field);
    refusals.push((at.clone(), why.map_or(surface.otherwise, |(_, why)| why).to_owned()));
}

pub(super) static POD: Surface = Surface {
    #[cfg(test)]
    kind: "PodSpec",
    allowed: &[
        "activeDeadlineSeconds",
        "affinity",
        "automountServiceAccountToken",
        "dnsConfig",
        "dnsPolicy",
        "enableServiceLinks",
        "hostAliases",
        "hostUsers",
        "hostname",
        "imagePullSecrets",
        "nodeSelector",
        "os",
        "overhead",
        "preemptionPolicy",
        "priority",
        "priorityClassName",
        "readinessGates",
        "resourceClaims",
        "resources",
        "restartPolicy",
        "runtimeClassName",
        "schedulerName",
        "schedulingGates",
        "setHostnameAsFQDN",
        "shareProcessNamespace",
        "subdomain",
        "terminationGracePeriodSeconds",
        "tolerations",
        "topologySpreadConstraints",
    ],
    #[cfg(test)]
    examined: &[
        "containers",
        "initContainers",
        "ephemeralContainers",
        "volumes",
        "securityContext",
    ],
    refused: &[
        ("hostNetwork", "gives the pod the node's network"),
        ("hostPID", "shows the pod every process of the node"),
        ("hostIPC", "shares memory with every process of the node"),
        ("nodeName", "goes around the scheduler: use nodeSelector or affinity"),
        (
            "serviceAccountName",
            "runs as another ServiceAccount: set serviceAccountName of the tier",
        ),
        ("serviceAccount", "runs as another ServiceAccount: set serviceAccountName of the tier"),
    ],
    otherwise: "is not known to be harmless in a pod",
};

pub(super) static CONTAINER: Surface = Surface {
    #[cfg(test)]
    kind: "Container",
    allowed: &[
        "args",
        "command",
        "env",
        "envFrom",
        "image",
        "imagePullPolicy",
        "name",
        "resizePolicy",
        "resources",
        "restartPolicy",
        "stdin",
        "stdinOnce",
        "targetContainerName",
        "terminationMessagePath",
        "terminationMessagePolicy",
        "tty",
        "volumeDevices",
        "workingDir",
    ],
    #[cfg(test)]
    examined: &[
        "lifecycle",
        "livenessProbe",
        "ports",
        "readinessProbe",
        "securityContext",
        "startupProbe",
        "volumeMounts",
    ],
    refused: &[],
    otherwise: "is not known to be harmless in a container",
};

pub(super) static VOLUME: Surface = Surface {
    #[cfg(test)]
    kind: "Volume",
    allowed: &[
        "name",
        "configMap",
        "csi",
        "downwardAPI",
        "emptyDir",
        "ephemeral",
        "persistentVolumeClaim",
        "projected",
        "secret",
    ],
    #[cfg(test)]
    examined: &[],
    refused: &[("hostPath", "shows the pod files of the node")],
    otherwise: "mounts what does not belong to the namespace: use a persistentVolumeClaim",
};

pub(super) static PROJECTED: Surface = Surface {
    #[cfg(test)]
    kind: "VolumeProjection",
    allowed: &["clusterTrustBundle", "configMap", "downwardAPI", "secret"],
    #[cfg(test)]
    examined: &[],
    refused: &[(
        "serviceAccountToken",
        "mounts a token that others than the API server accept as the ServiceAccount",
    )],
    otherwise: "is not known to be harmless in a volume",
};
