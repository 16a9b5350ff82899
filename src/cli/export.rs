//! `edge-gateway export kubernetes`: the configuration as objects for a Kubernetes cluster.

use std::collections::BTreeSet;
use std::fs;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use crate::app::Failed;
use crate::config::Severity;
use crate::control::Previous;
use crate::kube_api::SourceObject;
use crate::yaml::Yaml;

use super::output;
use super::paths::{Paths, Variables};

#[derive(Args, Debug)]
pub(super) struct Export {
    #[command(subcommand)]
    to: To,
}

#[derive(Debug, Subcommand)]
enum To {
    /// Objects for `kubectl apply`, and a list of what the cluster has to provide
    Kubernetes(Kubernetes),
}

#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  edge-gateway export kubernetes | less
  edge-gateway export kubernetes --dir cluster --dns-name example.com \\
      --map billing.local=billing.shop.svc.cluster.local")]
struct Kubernetes {
    #[command(flatten)]
    paths: Paths,
    #[command(flatten)]
    variables: Variables,
    /// Write one file per object and PROVIDE.txt into this directory, created if it is missing; by
    /// default everything goes to standard output
    #[arg(long, value_name = "OUT")]
    dir: Option<PathBuf>,
    /// The name in the cluster of a host name of this host; may be repeated
    #[arg(
        long = "map",
        value_name = "HOST=NAME",
        default_value = "keycloak.local=keycloak.default.svc.cluster.local",
        value_parser = pair
    )]
    names: Vec<(String, String)>,
    /// A name for the certificates of listeners that have none; may be repeated
    #[arg(long, value_name = "NAME")]
    dns_name: Vec<String>,
    /// cert-manager's ClusterIssuer
    #[arg(long, value_name = "NAME", default_value = "letsencrypt")]
    issuer: String,
}

fn pair(text: &str) -> Result<(String, String), &'static str> {
    let (host, name) = text.split_once('=').ok_or("write it like `keycloak.local=NAME`")?;
    if host.is_empty() || name.is_empty() {
        return Err("neither side may be empty");
    }
    Ok((host.into(), name.into()))
}

impl Export {
    pub(super) fn run(self) -> Result<ExitCode, Failed> {
        let To::Kubernetes(wanted) = self.to;
        let loader = wanted.paths.loader(Vec::new(), wanted.variables.read()?)?;
        let load = loader.load(&Previous::default());
        let is_fault = |severity| severity == Severity::Error;
        let faults = load.diagnostics.iter().filter(|one| is_fault(one.severity));
        let faults: Vec<String> = faults.map(ToString::to_string).collect();
        if !faults.is_empty() {
            let _ = writeln!(io::stderr(), "{}", faults.join("\n"));
            return Ok(ExitCode::FAILURE);
        }
        // Without this check, a missing object would be noticed only in the cluster.
        let objects = match load.into_sources().iter().map(read).collect::<Result<Vec<Value>, _>>()
        {
            Ok(objects) => objects,
            Err(why) => {
                let _ = writeln!(io::stderr(), "edge-gateway: nothing is exported: {why}");
                return Ok(ExitCode::FAILURE);
            }
        };
        let rules = Rules { names: &wanted.names, dns: &wanted.dns_name, issuer: &wanted.issuer };
        let moved = rules.moved(objects);
        let Some(dir) = &wanted.dir else {
            output::print(&text_of(&moved))?;
            return Ok(ExitCode::SUCCESS);
        };
        if let Err(error) = write(dir, &moved) {
            let _ = writeln!(io::stderr(), "edge-gateway: nothing is exported: {error}");
            return Ok(ExitCode::FAILURE);
        }
        Ok(ExitCode::SUCCESS)
    }
}

/// Parses the JSON of an object.
///
/// # Errors
///
/// Returns a message that names the object.
fn read(source: &SourceObject) -> Result<Value, String> {
    serde_json::from_str(&source.written.json())
        .map_err(|error| format!("what is kept of {} is not JSON: {error}", source.key))
}

/// The objects to apply, and the prerequisites of the cluster.
#[derive(Debug, Default)]
struct Moved {
    objects: Vec<Value>,
    provide: BTreeSet<String>,
}

struct Rules<'a> {
    names: &'a [(String, String)],
    dns: &'a [String],
    issuer: &'a str,
}

impl Rules<'_> {
    fn moved(&self, objects: Vec<Value>) -> Moved {
        let mut moved = Moved::default();
        moved.needs("the CRDs of the Gateway API 1.6.1, experimental channel");
        let hosts = hostnames(&objects);
        let written: BTreeSet<String> =
            objects.iter().filter(|of| text(of, "/kind") == "Namespace").map(name).collect();
        for mut object in objects {
            if let Some(fields) = object.as_object_mut() {
                fields.shift_remove("status");
            }
            without_host_annotations(&mut object);
            let namespace = namespace(&object);
            match text(&object, "/kind") {
                // cert-manager creates the Secrets, under the names in the Certificates.
                "Secret" => continue,
                "GatewayClass" => {
                    let controller = text(&object, "/spec/controllerName");
                    moved.needs(format!("a controller that answers to {controller}"));
                }
                "Backend" => self.backend(&mut object, &mut moved),
                "Gateway" | "ListenerSet" => self.certificates(&object, &hosts, &mut moved),
                _ => {}
            }
            if text(&object, "/apiVersion").starts_with("gateway.envoyproxy.io/") {
                moved.needs("Envoy Gateway with extensionApis.enableBackend, for its own kinds");
            }
            if let Some(namespace) = namespace.filter(|of| !written.contains(of)) {
                moved.needs(format!("the namespace {namespace}"));
            }
            moved.objects.push(object);
        }
        moved
    }

    /// Replaces host names of a Backend by names of Services.
    fn backend(&self, object: &mut Value, moved: &mut Moved) {
        let backend = name(object);
        let Some(Value::Array(endpoints)) = object.pointer_mut("/spec/endpoints") else { return };
        for endpoint in endpoints {
            if let Some(Value::String(host)) = endpoint.pointer_mut("/fqdn/hostname") {
                match self.names.iter().find(|(here, _)| here == host) {
                    Some((_, there)) => {
                        host.clone_from(there);
                        moved.needs(format!("what Backend {backend} calls {there}, a Service"));
                    }
                    None => moved.needs(format!(
                        "a name {host} for Backend {backend}, or its own: --map {host}=NAME"
                    )),
                }
            } else {
                let at = endpoint.pointer("/ip/address").or_else(|| endpoint.pointer("/unix/path"));
                let at = at.and_then(Value::as_str).unwrap_or("an endpoint");
                moved.needs(format!(
                    "a Service in place of {at} in Backend {backend}: that is this host"
                ));
            }
        }
    }

    /// Adds a Certificate for each Secret that listeners refer to.
    fn certificates(&self, object: &Value, hosts: &BTreeSet<String>, moved: &mut Moved) {
        let Some(Value::Array(listeners)) = object.pointer("/spec/listeners") else { return };
        for listener in listeners {
            let Some(Value::Array(refs)) = listener.pointer("/tls/certificateRefs") else {
                continue;
            };
            let own = text(listener, "/hostname").to_owned();
            let mut names: BTreeSet<&str> = self.dns.iter().map(String::as_str).collect();
            match own.is_empty() {
                true => names.extend(hosts.iter().map(String::as_str)),
                false => names = BTreeSet::from([&*own]),
            }
            for reference in refs {
                let secret = text(reference, "/name");
                let place = match text(reference, "/namespace") {
                    "" => namespace(object),
                    other => Some(other.to_owned()),
                };
                if names.is_empty() {
                    moved.needs(format!(
                        "the Secret {secret}: no host is written anywhere, so --dns-name has to \
                         say for which a Certificate is to be"
                    ));
                    continue;
                }
                moved.needs("cert-manager");
                moved.needs(format!("the ClusterIssuer {}", self.issuer));
                let mut certificate = json!({
                    "apiVersion": "cert-manager.io/v1",
                    "kind": "Certificate",
                    "metadata": { "name": secret },
                    "spec": {
                        "secretName": secret,
                        "dnsNames": names,
                        "issuerRef": { "kind": "ClusterIssuer", "name": self.issuer },
                    },
                });
                if let Some(place) = place {
                    certificate["metadata"]["namespace"] = place.into();
                }
                if !moved.objects.contains(&certificate) {
                    moved.objects.push(certificate);
                }
            }
        }
    }
}

impl Moved {
    fn needs(&mut self, what: impl Into<String>) {
        self.provide.insert(what.into());
    }

    fn list(&self) -> String {
        let items = self.provide.iter().map(|item| format!("- {item}\n"));
        format!("The cluster has to provide:\n{}", items.collect::<String>())
    }
}

/// Returns all hostnames of routes.
fn hostnames(objects: &[Value]) -> BTreeSet<String> {
    let lists = objects.iter().filter_map(|object| object.pointer("/spec/hostnames")?.as_array());
    lists.flatten().filter_map(|host| host.as_str().map(Into::into)).collect()
}

/// Removes annotations of this gateway, which refer to this host.
fn without_host_annotations(object: &mut Value) {
    let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) else { return };
    let Some(annotations) = metadata.get_mut("annotations").and_then(Value::as_object_mut) else {
        return;
    };
    annotations.retain(|key, _| !key.starts_with("edge-gateway.io/"));
    if annotations.is_empty() {
        metadata.shift_remove("annotations");
    }
}

fn text<'a>(of: &'a Value, pointer: &str) -> &'a str {
    of.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
}

fn name(of: &Value) -> String {
    text(of, "/metadata/name").to_owned()
}

fn namespace(of: &Value) -> Option<String> {
    Some(text(of, "/metadata/namespace")).filter(|of| !of.is_empty()).map(Into::into)
}

fn text_of(moved: &Moved) -> String {
    let mut out = String::new();
    for line in moved.list().lines() {
        out.push_str(&format!("# {line}\n"));
    }
    for object in &moved.objects {
        out.push_str(&format!("---\n{}", Yaml(object)));
    }
    out
}

fn write(dir: &Path, moved: &Moved) -> io::Result<()> {
    fs::create_dir_all(dir)?;
    for (number, object) in moved.objects.iter().enumerate() {
        // Numbered, because objects in two namespaces may have the same name; in the order of the
        // files.
        let kind = text(object, "/kind").to_ascii_lowercase();
        let file = format!("{number:03}-{kind}-{}.yaml", name(object));
        fs::write(dir.join(file), Yaml(object).to_string())?;
    }
    fs::write(dir.join("PROVIDE.txt"), moved.list())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn moved(dns: &[&str], objects: &Value) -> Moved {
        let names = [("keycloak.local".into(), "keycloak.default.svc.cluster.local".into())];
        let dns: Vec<String> = dns.iter().map(|name| (*name).into()).collect();
        let rules = Rules { names: &names, dns: &dns, issuer: "letsencrypt" };
        rules.moved(objects.as_array().unwrap().clone())
    }

    #[test]
    fn a_backend_is_a_service_where_its_host_is_mapped() {
        let backend = json!([{
            "apiVersion": "gateway.envoyproxy.io/v1alpha1", "kind": "Backend",
            "metadata": { "name": "b", "annotations": { "edge-gateway.io/a": "1" } },
            "spec": { "endpoints": [
                { "fqdn": { "hostname": "keycloak.local", "port": 8080 } },
                { "fqdn": { "hostname": "other.local", "port": 8080 } },
                { "ip": { "address": "127.0.0.1", "port": 8080 } },
            ] },
        }]);
        let Moved { objects, provide } = moved(&[], &backend);
        let host = |at: usize| text(&objects[0]["spec"]["endpoints"][at], "/fqdn/hostname");
        assert_eq!(host(0), "keycloak.default.svc.cluster.local");
        assert_eq!(host(1), "other.local");
        assert_eq!(objects[0]["metadata"].get("annotations"), None);
        for word in ["--map other.local=NAME", "in place of 127.0.0.1", "enableBackend"] {
            assert!(provide.iter().any(|item| item.contains(word)), "{word}: {provide:?}");
        }
    }

    #[test]
    fn a_secret_becomes_a_certificate_for_the_names_of_its_listener() {
        let objects = |hostname: &str| {
            let mut listener = json!({ "tls": { "certificateRefs": [{ "name": "cert" }] } });
            if !hostname.is_empty() {
                listener["hostname"] = hostname.into();
            }
            json!([
                { "kind": "Secret", "metadata": { "name": "cert" }, "data": { "tls.key": "a" } },
                { "kind": "Gateway", "metadata": { "name": "g", "namespace": "n" },
                  "spec": { "listeners": [listener] } },
            ])
        };
        // (hostname, --dns-name, dnsNames)
        let table: [(&str, &[&str], Option<Value>); 3] = [
            ("a.test", &["b.test"], Some(json!(["a.test"]))),
            ("", &["b.test"], Some(json!(["b.test"]))),
            ("", &[], None),
        ];
        for (hostname, dns, want) in table {
            let Moved { objects, provide } = moved(dns, &objects(hostname));
            let certificate = objects.iter().find(|one| one["kind"] == "Certificate");
            assert_eq!(certificate.map(|one| one["spec"]["dnsNames"].clone()), want);
            if let Some(certificate) = certificate {
                assert_eq!(certificate["metadata"], json!({ "name": "cert", "namespace": "n" }));
            }
            assert_eq!(provide.iter().any(|item| item.contains("--dns-name")), want.is_none());
            assert!(objects.iter().all(|one| one["kind"] != "Secret"));
        }
    }
}
