//! The EnvoyGateway document: which directories to read, and the little else of it that means
//! something here.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::Deserialize;
use serde::de::IgnoredAny;

use super::decode::{Decoded, Environment, Fault, Rules, decode};
use super::diagnostic::{Diagnostic, Place, Position, Severity};
use super::yaml::{Node, documents};

/// The controller that Envoy Gateway is by default.
pub(crate) const DEFAULT_CONTROLLER: &str = "gateway.envoyproxy.io/gatewayclass-controller";

/// What the EnvoyGateway document says, resolved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Settings {
    /// Directories and files of resources, in the order of the document.
    pub paths: Vec<PathBuf>,
    /// `gateway.controllerName`: GatewayClasses of this controller are served.
    pub controller_name: String,
    /// `extensionApis.enableBackend`: whether routes may refer to a Backend. False where absent.
    pub enable_backend: bool,
    /// `logging.level.default`, as written: debug, info, warn or error.
    pub log_level: Option<String>,
}

impl Settings {
    /// The settings that serve the files of `paths` without an EnvoyGateway document.
    pub(crate) fn of_paths(paths: Vec<PathBuf>) -> Self {
        Self {
            paths,
            controller_name: DEFAULT_CONTROLLER.into(),
            enable_backend: true,
            log_level: None,
        }
    }

    /// Reads the EnvoyGateway document in `file`.
    ///
    /// In paths, `{env}` is the value of `EDGE_GATEWAY_ENV`, `prod` where that is not set or
    /// empty. Absolute paths are taken below `root`, where one is given; other paths are relative
    /// to the directory of `file`.
    ///
    /// The diagnostics are warnings where settings come with them: parts of the document that mean
    /// nothing to this gateway.
    ///
    /// # Errors
    ///
    /// Everything that is wrong with the document.
    pub(crate) fn read(
        file: &Path,
        root: Option<&Path>,
        environment: Environment<'_>,
    ) -> Result<(Self, Vec<Diagnostic>), Vec<Diagnostic>> {
        let text = fs::read_to_string(file).map_err(|error| {
            vec![Diagnostic::unreadable(file, format!("cannot be read: {error}"))]
        })?;
        Self::parse(&file.into(), &text, root, environment)
    }

    fn parse(
        file: &Arc<Path>,
        text: &str,
        root: Option<&Path>,
        environment: Environment<'_>,
    ) -> Result<(Self, Vec<Diagnostic>), Vec<Diagnostic>> {
        let report = |severity, fault: Fault| Diagnostic {
            severity,
            fatal: severity == Severity::Error,
            place: Place { file: Arc::clone(file), position: Some(fault.at) },
            object: "EnvoyGateway".into(),
            field: fault.field,
            problem: fault.problem,
        };
        let failed = |faults: Vec<Fault>| -> Vec<Diagnostic> {
            faults.into_iter().map(|fault| report(Severity::Error, fault)).collect()
        };

        let node = only_document(text).map_err(failed)?;
        let rules = Rules { environment, root_fields: &["apiVersion", "kind"], secret: false };
        let Decoded { value, faults, unknown } = decode::<EnvoyGateway>(&node, rules);
        let Some(document) = value else { return Err(failed(faults)) };
        let here = |field: &str, problem: String| {
            let at = super::source::position_in(&node, field);
            vec![Fault { at, field: field.into(), problem }]
        };
        let resolved = document.resolve(file, root, environment);
        let settings = resolved.map_err(|(field, problem)| failed(here(field, problem)))?;

        let warned = unknown.into_iter().map(|fault| {
            report(
                Severity::Warning,
                Fault { problem: format!("{}, ignored", fault.problem), ..fault },
            )
        });
        Ok((settings, warned.collect()))
    }
}

/// The one EnvoyGateway document of a file.
fn only_document(text: &str) -> Result<Arc<Node>, Vec<Fault>> {
    let whole = |problem: &str| {
        vec![Fault { at: Position::START, field: String::new(), problem: problem.into() }]
    };
    let mut documents = documents(text);
    let faults: Vec<Fault> = documents
        .iter_mut()
        .flat_map(|document| document.faults.drain(..))
        .map(|fault| Fault { at: fault.at, field: String::new(), problem: fault.problem })
        .collect();
    if !faults.is_empty() {
        return Err(faults);
    }
    let mut roots = documents
        .into_iter()
        .filter_map(|document| document.root)
        .filter(|root| root.text() != Some(""));
    let Some(root) = roots.next() else {
        return Err(whole("the file is empty; it holds the EnvoyGateway document"));
    };
    if roots.next().is_some() {
        return Err(whole("there is more than one document; this file holds EnvoyGateway alone"));
    }
    let text = |name| root.entry(name).and_then(|entry| entry.value.text());
    if (text("apiVersion"), text("kind"))
        != (Some("gateway.envoyproxy.io/v1alpha1"), Some("EnvoyGateway"))
    {
        return Err(whole(
            "this is no EnvoyGateway document; write `apiVersion: gateway.envoyproxy.io/v1alpha1` \
             and `kind: EnvoyGateway`",
        ));
    }
    Ok(root)
}

/// The document as written. What Envoy Gateway knows and this gateway has no use for is ignored
/// without a word; what neither knows is told.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct EnvoyGateway {
    provider: Option<Provider>,
    gateway: Option<Controller>,
    logging: Option<Logging>,
    extension_apis: Option<ExtensionApis>,
    #[serde(rename = "metadata")]
    _metadata: Option<IgnoredAny>,
    #[serde(rename = "admin")]
    _admin: Option<IgnoredAny>,
    #[serde(rename = "telemetry")]
    _telemetry: Option<IgnoredAny>,
}

#[derive(Deserialize)]
struct Provider {
    #[serde(rename = "type")]
    kind: Option<String>,
    custom: Option<Custom>,
    #[serde(rename = "kubernetes")]
    _kubernetes: Option<IgnoredAny>,
}

#[derive(Deserialize)]
struct Custom {
    resource: Option<Resource>,
    #[serde(rename = "infrastructure")]
    _infrastructure: Option<IgnoredAny>,
}

#[derive(Deserialize)]
struct Resource {
    #[serde(rename = "type")]
    kind: Option<String>,
    file: Option<Files>,
}

#[derive(Deserialize)]
struct Files {
    #[serde(default)]
    paths: Vec<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Controller {
    controller_name: Option<String>,
}

#[derive(Deserialize)]
struct Logging {
    #[serde(default)]
    level: BTreeMap<String, String>,
    #[serde(rename = "encoder")]
    _encoder: Option<IgnoredAny>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ExtensionApis {
    enable_backend: Option<bool>,
    #[serde(rename = "enableEnvoyPatchPolicy")]
    _enable_envoy_patch_policy: Option<IgnoredAny>,
    #[serde(rename = "disableLua")]
    _disable_lua: Option<IgnoredAny>,
    #[serde(rename = "enableLua")]
    _enable_lua: Option<IgnoredAny>,
    #[serde(rename = "enableSDSSecretRef")]
    _enable_sds_secret_ref: Option<IgnoredAny>,
}

impl EnvoyGateway {
    /// The settings, or the field that is wrong and why.
    fn resolve(
        self,
        file: &Path,
        root: Option<&Path>,
        environment: Environment<'_>,
    ) -> Result<Settings, (&'static str, String)> {
        const PATHS: &str = "provider.custom.resource.file.paths";

        let provider = self.provider.ok_or_else(|| {
            ("provider", format!("`provider` is missing; name the directories in `{PATHS}`"))
        })?;
        check_word("provider.type", provider.kind.as_deref(), "Custom")?;
        let resource = provider.custom.and_then(|custom| custom.resource);
        let resource_type = resource.as_ref().and_then(|resource| resource.kind.as_deref());
        check_word("provider.custom.resource.type", resource_type, "File")?;
        let paths = resource.and_then(|resource| resource.file).map_or_else(Vec::new, |f| f.paths);
        if paths.is_empty() {
            return Err((PATHS, "no path is named; name at least one directory".into()));
        }

        let name = environment("EDGE_GATEWAY_ENV").filter(|name| !name.is_empty());
        let name = name.unwrap_or_else(|| "prod".into());
        if name.contains('/') || name == "." || name == ".." {
            let problem =
                format!("EDGE_GATEWAY_ENV is `{name}`; it must be the name of a directory");
            return Err((PATHS, problem));
        }
        let below = file.parent().unwrap_or(Path::new(""));
        let resolve = |path: &String| {
            let path = PathBuf::from(path.replace("{env}", &name));
            match (path.strip_prefix("/"), root) {
                (Ok(rest), Some(root)) => root.join(rest),
                (Ok(_), None) => path,
                (Err(_), _) => below.join(path),
            }
        };
        Ok(Settings {
            paths: paths.iter().map(resolve).collect(),
            controller_name: self
                .gateway
                .and_then(|gateway| gateway.controller_name)
                .filter(|name| !name.is_empty())
                .unwrap_or_else(|| DEFAULT_CONTROLLER.into()),
            enable_backend: self.extension_apis.and_then(|apis| apis.enable_backend) == Some(true),
            log_level: self.logging.and_then(|mut logging| logging.level.remove("default")),
        })
    }
}

fn check_word(
    field: &'static str,
    found: Option<&str>,
    wanted: &str,
) -> Result<(), (&'static str, String)> {
    match found {
        Some(word) if word == wanted => Ok(()),
        Some(word) => Err((field, format!("`{word}` is not supported; write `{wanted}`"))),
        None => Err((field, format!("`type` is missing; write `type: {wanted}`"))),
    }
}
