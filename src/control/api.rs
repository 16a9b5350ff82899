//! Changes over the API: written and loaded before they are answered.

use std::path::Path;

use crate::control::Control;
use crate::control::socket::{ApiAt, Reloaded};
use crate::control::under_way::{Answer, Purpose, WrittenChange};
use crate::kube_api::{self, ApiError, Change, ChangeRequest, Listen, PreparedChange, Undo};

impl Control {
    /// Serves the API on a loopback address. If that fails, the gateway runs without it.
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

    /// Writes a change and begins the load that it waits for. No other load may be under way.
    pub(super) fn change(&mut self, asked: ChangeRequest) {
        let ChangeRequest { change, answer } = asked;
        if answer.is_closed() {
            return;
        }
        let label = change.label();
        match self.write(&change) {
            // The objects are already in the requested state.
            Ok((prepared, None)) => {
                let _ = answer.send(Ok((prepared, self.api.view())));
            }
            Ok((prepared, Some(undo))) => {
                self.begin(Purpose::Change(Box::new(WrittenChange {
                    label,
                    prepared,
                    undo,
                    answer,
                })));
            }
            Err(refused) => refuse(&label, refused, answer),
        }
    }

    fn write(&self, change: &Change) -> Result<(PreparedChange, Option<Undo>), ApiError> {
        let directory = self.api_dir.clone();
        let nowhere =
            || ApiError::nowhere("no directory of resources is named that could be written to");
        let directory = directory.ok_or_else(nowhere)?;
        let prepared = change.prepare(&self.api.view(), &directory)?;
        if prepared.files.is_empty() {
            return Ok((prepared, None));
        }
        let undo = kube_api::change(&prepared.files)
            .map_err(|error| ApiError::nowhere(unwritable(&directory, &error)))?;
        Ok((prepared, Some(undo)))
    }

    /// Answers a change whose load has ended. A change that is not served is undone.
    pub(super) fn changed(&self, change: WrittenChange, reloaded: Reloaded) {
        let WrittenChange { label, prepared, undo, answer } = change;
        if reloaded.loaded {
            tracing::info!("{prepared} over the API");
            // A client that no longer waits has dropped its receiver.
            let _ = answer.send(Ok((prepared, self.api.view())));
            return;
        }
        undo.undo();
        let fatal = reloaded.diagnostics.iter().find(|told| told.fatal);
        let why = fatal.map(|told| told.text.clone()).or(reloaded.refused);
        refuse(&label, ApiError::not_loaded(&why.unwrap_or_default()), answer);
    }
}

fn refuse(label: &str, refused: ApiError, answer: Answer) {
    tracing::info!(code = refused.code, "{label} refused: {}", refused.message);
    let _ = answer.send(Err(refused));
}

fn unwritable(directory: &Path, error: &std::io::Error) -> String {
    format!("nothing can be written to {}: {error}", directory.display())
}
