//! Changes that are asked for over the API: written, loaded and only then answered.

use std::path::Path;

use crate::control::Control;
use crate::control::cause::Cause;
use crate::control::socket::ApiAt;
use crate::kube_api::{self, Asked, Change, Listen, Prepared, Refused};

impl Control {
    /// Serves the API on a loopback address; without one that can be had, everything else is served.
    pub(super) fn listen(&mut self, listen: &Listen) {
        match self.api.listen(listen) {
            Ok(address) => {
                let Listen { token_file, ca_file, .. } = listen.clone();
                tracing::info!("API on {address}, token in {}", token_file.display());
                self.api_at = Some(ApiAt { address, token_file, ca_file });
            }
            Err(error) => tracing::error!("the API is not served: {error}"),
        }
    }

    /// Makes a change, and answers when it is served, or nothing was changed.
    pub(super) fn change(&mut self, asked: Asked) {
        let Asked { change, answer } = asked;
        if answer.is_closed() {
            return;
        }
        let done = self.make(&change).map(|prepared| (prepared, self.api.view()));
        if let Err(refused) = &done {
            tracing::info!(code = refused.code, "{} refused: {}", change.label(), refused.message);
        }
        // Whoever does not wait any more has no use for it.
        let _ = answer.send(done);
    }

    fn make(&mut self, change: &Change) -> Result<Prepared, Refused> {
        let directory = self.api_dir.clone();
        let nowhere =
            || Refused::nowhere("no directory of resources is named that could be written to");
        let directory = directory.ok_or_else(nowhere)?;
        let prepared = change.prepare(&self.api.view(), &directory)?;
        if prepared.files.is_empty() {
            return Ok(prepared);
        }
        let undo = kube_api::change(&prepared.files)
            .map_err(|error| Refused::nowhere(unwritable(&directory, &error)))?;
        let reloaded = self.reload(Cause::Api);
        if reloaded.loaded {
            tracing::info!("{prepared} over the API");
            return Ok(prepared);
        }
        undo.undo();
        let fatal = reloaded.diagnostics.iter().find(|told| told.fatal);
        let why = fatal.map(|told| told.text.clone()).or(reloaded.refused);
        Err(Refused::not_loaded(&why.unwrap_or_default()))
    }
}

fn unwritable(directory: &Path, error: &std::io::Error) -> String {
    format!("nothing can be written to {}: {error}", directory.display())
}
