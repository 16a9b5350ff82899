//! The EnvoyGateway document: the directories of resources, and the few other settings that this
//! gateway uses.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::Deserialize;
use serde::de::IgnoredAny;

use super::decode::{DecodeRules, DecodedDocument, Environment, Misread, decode};
use super::diagnostic::{Diagnostic, Place, Position};
use super::fault::{Origin, Severity};
use super::tree::Node;
use super::variables::Variables;
use super::yaml::documents;

/// The default controller name of Envoy Gateway.
pub(crate) const DEFAULT_CONTROLLER: &str = "gateway.envoyproxy.io/gatewayclass-controller";

/// Parts of the document that have no effect here and are reported with a warning.
const WITHOUT_EFFECT: &[&str] = &[
    "admin",
    "envoyProxy",
    "extensionManager",
    "extensionManagers",
    "gatewayAPI",
    "rateLimit",
    "runtimeFlags",
    "telemetry",
    "xdsServer",
];

/// The settings of the EnvoyGateway document, resolved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Settings {
    /// Directories and files of resources, in the order of the document.
    pub paths: Vec<PathBuf>,
    /// `gateway.controllerName`: GatewayClasses of this controller are served.
    pub controller_name: String,
    /// `extensionApis.enableBackend`: true if routes may refer to a Backend. Default: false.
    pub enable_backend: bool,
    /// `logging.level.default`, one of [`LEVELS`].
    pub log_level: Option<String>,
    /// True if files that are not read cause a warning. False for directories that the user did not
    /// name, such as those of `dev`, which may contain any files.
    pub names_unread: bool,
}

/// The valid values of `logging.level`.
const LEVELS: [&str; 4] = ["debug", "info", "warn", "error"];

impl Settings {
    /// Returns the settings that serve the files of `paths` without an EnvoyGateway document.
    pub(crate) fn of_paths(paths: Vec<PathBuf>) -> Self {
        Self {
            paths,
            controller_name: DEFAULT_CONTROLLER.into(),
            enable_backend: true,
            log_level: None,
            names_unread: false,
        }
    }

    /// Reads the EnvoyGateway document in `file`.
    ///
    /// In paths, `{env}` is replaced by the value of `EDGE_GATEWAY_ENV`, or by `prod` if that is
    /// not set or empty. Absolute paths are taken below `root`, if one is given; other paths are
    /// relative to the directory of `file`.
    ///
    /// The diagnostics of a successful read are warnings about parts of the document that have no
    /// effect on this gateway.
    ///
    /// # Errors
    ///
    /// All faults of the document.
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
        let report = |severity, fault: Misread| Diagnostic {
            severity,
            fatal: severity == Severity::Error,
            place: Place { file: Arc::clone(file), position: Some(fault.at) },
            object: "EnvoyGateway".into(),
            field: fault.field,
            problem: fault.problem,
            origin: Origin::Written,
        };
        let failed = |faults: Vec<Misread>| -> Vec<Diagnostic> {
            faults.into_iter().map(|fault| report(Severity::Error, fault)).collect()
        };

        let node = only_document(text).map_err(failed)?;
        let known = [&["apiVersion", "kind", "metadata"], WITHOUT_EFFECT].concat();
        let variables = Variables::Replaced;
        let rules = DecodeRules { environment, root_fields: &known, secret: false, variables };
        let DecodedDocument { value, faults, unknown } = decode::<EnvoyGateway>(&node, rules);
        let Some(document) = value else { return Err(failed(faults)) };
        let here = |field: &str, problem: String| {
            let at = super::source::position_in(&node, &field.into());
            vec![Misread { at, field: field.into(), problem }]
        };
        let resolved = document.resolve(file, root, environment);
        let mut settings = resolved.map_err(|(field, problem)| failed(here(field, problem)))?;
        let level = settings.log_level.take_if(|level| !LEVELS.contains(&&**level));
        let level = level.map(|level| {
            let problem = format!("`{level}` is not a level; use {}, ignored", LEVELS.join(", "));
            here("logging.level.default", problem)
        });

        let without_effect = WITHOUT_EFFECT.iter().filter_map(|name| node.entry(name));
        let without_effect = without_effect.map(|entry| Misread {
            at: entry.key_at,
            field: entry.key.clone(),
            problem: "has no effect on this gateway, ignored".into(),
        });
        let unknown = unknown
            .into_iter()
            .map(|fault| Misread { problem: format!("{}, ignored", fault.problem), ..fault });
        let warnings = without_effect.chain(unknown).chain(level.into_iter().flatten());
        Ok((settings, warnings.map(|fault| report(Severity::Warning, fault)).collect()))
    }
}

/// Returns the only document of a file, which must be an EnvoyGateway.
fn only_document(text: &str) -> Result<Arc<Node>, Vec<Misread>> {
    let whole = |problem: &str| {
        vec![Misread { at: Position::START, field: String::new(), problem: problem.into() }]
    };
    let mut documents: Vec<_> = documents(text).collect();
    let faults: Vec<Misread> = documents
        .iter_mut()
        .flat_map(|document| document.faults.drain(..))
        .map(|fault| Misread { at: fault.at, field: String::new(), problem: fault.problem })
        .collect();
    if !faults.is_empty() {
        return Err(faults);
    }
    let mut roots =
        documents.into_iter().filter_map(|document| document.root).filter(|root| !root.is_null());
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
            "this is not an EnvoyGateway document; write `apiVersion: gateway.envoyproxy.io/v1alpha1` \
             and `kind: EnvoyGateway`",
        ));
    }
    Ok(root)
}

/// The document as written. Parts that describe how Envoy Gateway runs its Envoy have no effect
/// here and are ignored without a warning.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct EnvoyGateway {
    provider: Option<Provider>,
    gateway: Option<Controller>,
    logging: Option<Logging>,
    extension_apis: Option<ExtensionApis>,
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
    resource: Option<ResourceSettings>,
    #[serde(rename = "infrastructure")]
    _infrastructure: Option<IgnoredAny>,
}

#[derive(Deserialize)]
struct ResourceSettings {
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
    /// Returns the settings, or the wrong field and its problem.
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
        let below = file.parent().unwrap_or_else(|| Path::new(""));
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
            names_unread: true,
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

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(
        text: &str,
        root: Option<&str>,
        name: Option<&str>,
    ) -> Result<(Settings, Vec<Diagnostic>), Vec<Diagnostic>> {
        let environment = |variable: &str| match variable {
            "EDGE_GATEWAY_ENV" => name.map(str::to_owned),
            "BASE" => Some("/srv".into()),
            _ => None,
        };
        let file: Arc<Path> = Path::new("/etc/eg/settings.yaml").into();
        Settings::parse(&file, text, root.map(Path::new), &environment)
    }

    /// Returns a document with one path and the text of `rest`.
    fn document(path: &str, rest: &str) -> String {
        format!(
            "\
apiVersion: gateway.envoyproxy.io/v1alpha1
kind: EnvoyGateway
provider:
  type: Custom
  custom:
    resource:
      type: File
      file:
        paths: [\"{path}\"]
{rest}"
        )
    }

    #[test]
    fn paths_are_resolved_by_root_environment_and_directory() {
        // (path, --config-root, EDGE_GATEWAY_ENV, resolved)
        let table = [
            ("/a/b", None, None, "/a/b"),
            ("/a/b", Some("/root"), None, "/root/a/b"),
            ("routes", None, None, "/etc/eg/routes"),
            ("routes", Some("/root"), None, "/etc/eg/routes"),
            ("/a/{env}/b", None, None, "/a/prod/b"),
            ("/a/{env}/b", None, Some(""), "/a/prod/b"),
            ("/a/{env}/b", None, Some("dev"), "/a/dev/b"),
            ("${BASE}/{env}", Some("/root"), Some("dev"), "/root/srv/dev"),
        ];
        for (path, root, name, want) in table {
            let (settings, warnings) = parse(&document(path, ""), root, name).unwrap();
            assert_eq!(settings.paths, [Path::new(want)], "{path} {root:?} {name:?}");
            assert_eq!(warnings, []);
        }
    }

    #[test]
    fn what_is_not_written_has_envoy_gateways_defaults() {
        let (settings, _) = parse(&document("/a", ""), None, None).unwrap();
        assert_eq!(settings.controller_name, DEFAULT_CONTROLLER);
        assert!(!settings.enable_backend);
        assert_eq!(settings.log_level, None);

        let rest = "\
gateway: {controllerName: example.com/mine}
extensionApis: {enableBackend: true}
logging: {level: {default: debug, provider: info}}
";
        let (settings, warnings) = parse(&document("/a", rest), None, None).unwrap();
        assert_eq!(settings.controller_name, "example.com/mine");
        assert!(settings.enable_backend);
        assert_eq!(settings.log_level.as_deref(), Some("debug"));
        assert_eq!(warnings, []);
    }

    #[test]
    fn what_means_nothing_here_is_a_warning() {
        let rest = "rateLimit: {backend: {type: Redis}}\nextensionApi: {enableBackend: true}\n";
        let (settings, warnings) = parse(&document("/a", rest), None, None).unwrap();
        let shown: Vec<String> = warnings.iter().map(ToString::to_string).collect();
        assert_eq!(
            shown,
            [
                "/etc/eg/settings.yaml:10:1: warning: EnvoyGateway: rateLimit: has no effect on \
                 this gateway, ignored",
                "/etc/eg/settings.yaml:11:1: warning: EnvoyGateway: unknown field `extensionApi`; \
                 did you mean `extensionApis`?, ignored",
            ]
        );
        assert!(!settings.enable_backend);

        let rest = "logging: {level: {default: loud}}\n";
        let (settings, warnings) = parse(&document("/a", rest), None, None).unwrap();
        assert_eq!(settings.log_level, None);
        assert_eq!(
            warnings[0].to_string(),
            "/etc/eg/settings.yaml:10:28: warning: EnvoyGateway: logging.level.default: `loud` is \
             not a level; use debug, info, warn, error, ignored"
        );
    }

    #[test]
    fn a_document_that_names_no_files_is_refused_with_its_place() {
        let head = "apiVersion: gateway.envoyproxy.io/v1alpha1\nkind: EnvoyGateway\n";
        let with = |rest: &str| format!("{head}{rest}");
        // (document, EDGE_GATEWAY_ENV, message after the file)
        let table = [
            (String::new(), None, ":1:1: EnvoyGateway: the file is empty"),
            ("# nothing\n".into(), None, ":1:1: EnvoyGateway: the file is empty"),
            ("a: [".into(), None, ":1:4: EnvoyGateway: a `[` or `{` is never closed"),
            ("kind: Gateway\n".into(), None, ":1:1: EnvoyGateway: this is not an EnvoyGateway"),
            (with("---\na: b\n"), None, ":1:1: EnvoyGateway: there is more than one document"),
            (with(""), None, ":1:1: EnvoyGateway: provider: `provider` is missing"),
            (
                with("provider: {type: Kubernetes}\n"),
                None,
                ":3:18: EnvoyGateway: provider.type: `Kubernetes` is not supported; write `Custom`",
            ),
            (
                with("provider: {type: Custom}\n"),
                None,
                ":3:1: EnvoyGateway: provider.custom.resource.type: `type` is missing",
            ),
            (
                document("/a", "").replace("[\"/a\"]", "[]"),
                None,
                ":9:9: EnvoyGateway: provider.custom.resource.file.paths: no path is named",
            ),
            (
                document("/{env}", ""),
                Some("../x"),
                ":9:9: EnvoyGateway: provider.custom.resource.file.paths: EDGE_GATEWAY_ENV is `../x`",
            ),
            (
                document("/${NOT_SET}", ""),
                None,
                ":9:17: EnvoyGateway: provider.custom.resource.file.paths[0]: `NOT_SET` is not set",
            ),
            (
                document("/a", "extensionApis: {enableBackend: maybe}\n"),
                None,
                ":10:32: EnvoyGateway: extensionApis.enableBackend: expected `true` or `false`, found the text `maybe`",
            ),
        ];
        for (text, name, want) in table {
            let diagnostics = parse(&text, None, name).unwrap_err();
            let shown = diagnostics[0].to_string();
            let want = format!("/etc/eg/settings.yaml{want}");
            assert!(shown.starts_with(&want), "{shown}\nwanted {want}");
        }
    }
}
