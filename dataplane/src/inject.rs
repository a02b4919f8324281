//! `ringtail inject`: adds an agent to the pods of workloads, as a native sidecar.
//!
//! The sidecar is thin. It takes OTLP on the pod's loopback, gathers it into batches and sends them on; it
//! knows no ring, keeps nothing for replay and asks nobody for anything. All that it needs is in the pod:
//! its settings are an annotation that it reads as a file, so it works in every namespace.
//!
//! What holds no pods comes out as it went in. Doing it twice changes nothing, and doing it with a newer
//! pipeline brings the sidecar up to date.

use std::path::{Path, PathBuf};

use clap::Args;
use serde_json::{Map, Value, json};

use self::sidecar::Sidecar;
use crate::input;

mod documents; // texts of several manifests
mod sidecar; //   what is added

/// More than a cluster takes of one object (1.5 MiB), for files of many.
const TEXT_BYTES_MAX: u64 = 64 << 20;
/// The settings of a sidecar.
const ANNOTATION: &str = "ringtail.dev/sidecar";
/// What the sidecar is called.
const CONTAINER: &str = "ringtail-agent";
/// The volume by which it sees its settings.
const VOLUME: &str = "ringtail-pipeline";

/// Flags of `ringtail inject`.
#[derive(Args, Clone, Debug)]
pub struct InjectOptions {
    /// Manifests of workloads: Deployment, StatefulSet, DaemonSet, ReplicaSet, Job, CronJob, Pod. Others
    /// stay as they are. `-`: standard input.
    #[arg(value_name = "FILE", default_value = "-")]
    pub file: PathBuf,
    /// The TracePipeline to send to.
    #[arg(long, value_name = "FILE")]
    pub pipeline: PathBuf,
    /// The sidecar's image. Default: the pipeline's `agent.image`, else `ringtail` with this version as its
    /// tag.
    #[arg(long, value_name = "IMAGE")]
    pub image: Option<String>,
}

/// Why there is nothing to apply.
#[derive(Debug, thiserror::Error)]
pub enum InjectError {
    /// A file cannot be read.
    #[error("{path}: {source}")]
    Read {
        /// Which one.
        path: String,
        /// Why.
        source: std::io::Error,
    },
    /// The pipeline is not one.
    #[error("{path}: {problem}")]
    Pipeline {
        /// Its file.
        path: String,
        /// What is wrong with it.
        problem: String,
    },
    /// A manifest is not YAML, or cannot be written as such.
    #[error("line {line}: {problem}")]
    Yaml {
        /// Where the manifest begins.
        line: usize,
        /// What is wrong with it.
        problem: String,
    },
    /// A manifest has no pods where its kind has them.
    #[error("{workload}: {field} is missing or of another type than in Kubernetes")]
    Shape {
        /// Kind and name.
        workload: String,
        /// Which field.
        field: &'static str,
    },
    /// Containers of a pod share its ports.
    #[error(
        "{workload}: container {container} has port {port} already, which the sidecar needs; choose others \
         in spec.agent.receivers of the pipeline (8888 is fixed)"
    )]
    PortTaken {
        /// Kind and name.
        workload: String,
        /// Who has it.
        container: String,
        /// Which one.
        port: u64,
    },
}

/// Reads the files and prints the result.
///
/// # Errors
/// When a file cannot be read, or a sidecar cannot be added.
pub fn run(options: &InjectOptions) -> Result<String, InjectError> {
    let pipeline = read(&options.pipeline)?;
    let path = || options.pipeline.display().to_string();
    let sidecar = Sidecar::new(&pipeline, options.image.as_deref())
        .map_err(|problem| InjectError::Pipeline { path: path(), problem })?;
    inject(&read(&options.file)?, &sidecar)
}

fn read(path: &Path) -> Result<String, InjectError> {
    let failed = |source| InjectError::Read { path: path.display().to_string(), source };
    input::read(path, TEXT_BYTES_MAX).map_err(failed)
}

/// The manifests with the sidecar in every pod.
fn inject(text: &str, sidecar: &Sidecar) -> Result<String, InjectError> {
    let mut output = String::new();
    for document in documents::split(text) {
        output.push_str(document.head);
        let mut value = document.value()?;
        if add_to_object(&mut value, sidecar)? {
            output.push_str(&document.write(&value)?);
        } else {
            output.push_str(document.body);
        }
    }
    Ok(output)
}

// Whether there was something to add to.
fn add_to_object(object: &mut Value, sidecar: &Sidecar) -> Result<bool, InjectError> {
    let place = match object["kind"].as_str().unwrap_or_default() {
        "Pod" => "",
        "Deployment" | "StatefulSet" | "DaemonSet" | "ReplicaSet" | "Job" => "/spec/template",
        "CronJob" => "/spec/jobTemplate/spec/template",
        "List" => {
            let mut added = false;
            for item in object["items"].as_array_mut().into_iter().flatten() {
                added |= add_to_object(item, sidecar)?;
            }
            return Ok(added);
        }
        _ => return Ok(false),
    };
    let workload = described(object);
    let shape = |field| InjectError::Shape { workload: workload.clone(), field };
    let template = object.pointer_mut(place).ok_or_else(|| shape("spec.template"))?;
    check_ports(template, sidecar, &workload)?;
    add_to_pod(template, sidecar).map_err(shape)?;
    Ok(true)
}

fn described(object: &Value) -> String {
    let text = |value: &Value| value.as_str().unwrap_or("(without a name)").to_owned();
    format!("{} {}", text(&object["kind"]), text(&object["metadata"]["name"]))
}

fn check_ports(template: &Value, sidecar: &Sidecar, workload: &str) -> Result<(), InjectError> {
    let lists = ["initContainers", "containers"].map(|list| template["spec"][list].as_array());
    let others = lists.into_iter().flatten().flatten().filter(|one| one["name"] != CONTAINER);
    for container in others {
        let ports = container["ports"].as_array().into_iter().flatten();
        let mut numbers = ports.filter_map(|port| port["containerPort"].as_u64());
        if let Some(port) = numbers.find(|port| sidecar.ports.contains(port)) {
            let container = container["name"].as_str().unwrap_or_default().to_owned();
            return Err(InjectError::PortTaken { workload: workload.to_owned(), container, port });
        }
    }
    Ok(())
}

// The field that is not as it should be, if there is one.
fn add_to_pod(template: &mut Value, sidecar: &Sidecar) -> Result<(), &'static str> {
    let template = template.as_object_mut().ok_or("the pod")?;
    let metadata = map(template, "metadata").ok_or("metadata of the pod")?;
    let annotations = map(metadata, "annotations").ok_or("metadata.annotations of the pod")?;
    annotations.insert(ANNOTATION.to_owned(), sidecar.manifest.clone().into());
    let spec = template.get_mut("spec").and_then(Value::as_object_mut).ok_or("spec of the pod")?;
    let volumes = list(spec, "volumes").ok_or("spec.volumes of the pod")?;
    let end = volumes.len();
    put(volumes, end, volume());
    // Before all others, because they may have something to tell too.
    let containers = list(spec, "initContainers").ok_or("spec.initContainers of the pod")?;
    put(containers, 0, sidecar.container.clone());
    Ok(())
}

fn volume() -> Value {
    let path = format!("metadata.annotations['{ANNOTATION}']");
    let item = json!({"path": "pipeline.yaml", "fieldRef": {"fieldPath": path}});
    json!({"name": VOLUME, "downwardAPI": {"items": [item]}})
}

// An absent one, or null, is an empty one.
fn map<'a>(parent: &'a mut Map<String, Value>, field: &str) -> Option<&'a mut Map<String, Value>> {
    let value = parent.entry(field).or_insert(Value::Null);
    if value.is_null() {
        *value = json!({});
    }
    value.as_object_mut()
}

fn list<'a>(parent: &'a mut Map<String, Value>, field: &str) -> Option<&'a mut Vec<Value>> {
    let value = parent.entry(field).or_insert(Value::Null);
    if value.is_null() {
        *value = json!([]);
    }
    value.as_array_mut()
}

// In the place of the one with the same name, else at `index`.
fn put(list: &mut Vec<Value>, index: usize, entry: Value) {
    match list.iter_mut().find(|other| other["name"] == entry["name"]) {
        Some(other) => *other = entry,
        None => list.insert(index, entry),
    }
}

#[cfg(test)]
mod tests;
