//! The state of the gateway, for status requests.

use nix::unistd::{getegid, geteuid};

use crate::control::socket::{Draining, Serving, StatusReport};
use crate::control::{ConfigSources, Control};
use crate::observe::counted;

impl Control {
    /// The answer to `GET /status`.
    pub(super) fn status(&self) -> StatusReport {
        let snapshot = self.gateway.snapshot.load();
        let (config, config_root) = match self.loader.sources() {
            ConfigSources::Document { file, root } => (Some(file.clone()), root.clone()),
            ConfigSources::Directories(_) => (None, None),
        };
        StatusReport {
            version: env!("CARGO_PKG_VERSION").into(),
            pid: std::process::id(),
            uid: geteuid().as_raw(),
            gid: getegid().as_raw(),
            serving: Serving::new(snapshot.generation, snapshot.counts),
            status: self.status_line(),
            trouble: self.trouble.clone(),
            refusal: self.refusal.clone(),
            reload_policy: self.policy.to_string(),
            impaired: self.impaired(),
            connections: self.gateway.connections.count(),
            config,
            config_root,
            api_dir: self.api_dir.clone(),
            api: self.api_at.clone(),
            letsencrypt_dir: self.loader.letsencrypt_dir().to_owned(),
            acme_webroot: self.gateway.acme_webroot.clone(),
        }
    }

    /// Problems apart from the configuration that exist now.
    fn impaired(&self) -> Vec<String> {
        let unwatched = self.reloads.unwatched.told();
        let unwatched =
            unwatched.map(|why| format!("files cannot be watched and are compared: {why}"));
        let logs = self.gateway.access_log.faults().into_iter();
        unwatched
            .into_iter()
            .chain(logs.map(|log| format!("log cannot be written: {log}")))
            .collect()
    }

    /// The STATUS line of `systemctl status`.
    pub(super) fn status_line(&self) -> String {
        let snapshot = self.gateway.snapshot.load();
        let counts = snapshot.counts;
        let mut status = format!(
            "serving {} on {} to {}, generation {}",
            counted(counts.routes, "route"),
            counted(counts.listeners, "listener"),
            counted(counts.backends, "backend"),
            snapshot.generation
        );
        if let Some(trouble) = self.trouble.as_ref() {
            status.push_str("; last reload failed: ");
            status.push_str(trouble);
        } else if let Some(problem) =
            self.loader.certificate_problem().or_else(|| self.impaired().into_iter().next())
        {
            status.push_str("; ");
            status.push_str(&problem);
        }
        status
    }

    /// The answer to `POST /drain_listeners`.
    pub(super) fn draining(&self) -> Draining {
        Draining {
            connections: self.gateway.connections.count(),
            timeout_ms: u64::try_from(self.drain_timeout.as_millis()).unwrap_or(u64::MAX),
        }
    }
}
