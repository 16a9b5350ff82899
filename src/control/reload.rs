//! A reload, step by step: everything changes, or nothing does.

use std::io;
use std::time::{Duration, Instant, SystemTime};

use crate::clock;
use crate::compile::Compiled;
use crate::config::Severity;
use crate::control::admission::{self, Refusal, Rules, Running};
use crate::control::cannot_start::{NO_DESCRIPTOR, list};
use crate::control::cause::Cause;
use crate::control::conditions::Conditions;
use crate::control::last_good::LastGood;
use crate::control::loader::{Load, Ready};
use crate::control::socket::{self, Past, Reloaded, Serving};
use crate::control::sockets::Prepared;
use crate::control::{CannotBind, CannotStart, Control};
use crate::observe::{counted, whole_millis};
use crate::snapshot::Snapshot;

/// Why a load is not served.
enum NotServed {
    Binds(Vec<CannotBind>),
    /// No descriptor is free for a worker's copy of a socket.
    Copies(io::Error),
    Files(Refusal),
}

/// Loads that are told of.
const PAST: usize = 20;

impl Control {
    /// Replaces what runs, or changes nothing; either way the service manager hears the end of it.
    pub(super) fn reload(&mut self, cause: Cause) -> Reloaded {
        let begun = clock::now();
        self.is_own_change = cause == Cause::Api;
        self.notify.reloading();
        // First and by themselves: a broken YAML file must never keep an old certificate in
        // service.
        self.reload_certificates(0);
        tracing::info!("reloading because {}", cause.why());
        let running = self.gateway.snapshot.load();
        let load = match (cause, &self.accepted) {
            (Cause::Api, Some(accepted)) => self.loader.load_api(accepted, &running),
            _ => self.loader.load(&running),
        };
        self.reloads.diagnostics.set(load.diagnostics.len() as u64);
        let diagnostics = Reloaded::told(&load.diagnostics);
        let served = self.serve(load, cause, begun);
        self.count(served.is_ok(), begun);
        let reloaded = match served {
            Ok(reloaded) => {
                // The API says nothing of what was refused of the files.
                if cause != Cause::Api {
                    self.refused(None, None);
                }
                reloaded
            }
            Err(not_served) => {
                let refused = self.tell(&not_served, cause);
                tracing::error!("reload failed; still serving the previous configuration");
                Reloaded { diagnostics, ..refused }
            }
        };
        self.notify.ready(&self.status_line());
        let reloaded = self.as_of_now(reloaded, begun);
        self.note(cause.word(), reloaded.clone());
        reloaded
    }

    /// What a reload would come to; changes nothing.
    pub(super) fn rehearse(&mut self, allow_removal: bool) -> Reloaded {
        let begun = clock::now();
        let running = self.gateway.snapshot.load();
        let load = self.loader.look(&running);
        let diagnostics = Reloaded::told(&load.diagnostics);
        let (files, objects) = (load.files, load.objects);
        let refusal = self.admit(&load, Cause::Asked { allow_removal }).err();
        let refusal = refusal.as_ref().map(socket::Refusal::from);
        let loaded = refusal.is_none();
        let would =
            Reloaded { loaded, files, objects, diagnostics, refusal, ..Reloaded::default() };
        self.as_of_now(would, begun)
    }

    /// The first load. The last good configuration is served in place of files that would not replace
    /// it if it ran.
    pub(super) fn first_load(&mut self) -> Result<(), CannotStart> {
        let begun = clock::now();
        let load = self.loader.load(&Snapshot::default());
        self.reloads.diagnostics.set(load.diagnostics.len() as u64);
        let diagnostics = Reloaded::told(&load.diagnostics);
        let kept = self.kept_beside(&load);
        let handed_over = self.sockets.handed_over();
        let running = kept.as_ref().map(|kept| Running {
            snapshot: &kept.compiled.snapshot,
            accepted: &kept.accepted,
            handed_over: &handed_over,
        });
        let rules = Rules { policy: self.policy, allow_removal: false };
        let refusal = match admission::judge(&load, running, rules) {
            Err(refusal) => refusal,
            Ok(new_faults) => {
                let served = self.serve_first(load, new_faults == 0, begun);
                self.count(served.is_ok(), begun);
                let served = self.as_of_now(served?, begun);
                self.note("start", served);
                return Ok(());
            }
        };
        self.count(false, begun);
        let Some(kept) = kept else {
            let all = load.diagnostics;
            self.standing.tell_failed(&all);
            return Err(CannotStart::Configuration(all));
        };
        self.standing.tell_refused(&refusal);
        tracing::error!("the files are refused; serving the last good configuration");
        let served = match self.sockets.prepare(&kept.compiled.snapshot) {
            Ok(prepared) => self.publish(kept, prepared, begun),
            Err(failed) => Err(NotServed::Binds(failed)),
        };
        let served = match served {
            Ok(served) => served,
            // Better files with a fault than nothing.
            Err(_) if load.compiled.is_some() => {
                tracing::error!("the last good configuration cannot be served; serving the files");
                self.serve_first(load, false, begun)?
            }
            Err(not_served) => return Err(not_served.into()),
        };
        let trouble = format!("the last good configuration is served; {refusal}");
        self.refused(Some(trouble), Some((&refusal).into()));
        let refusal = Some((&refusal).into());
        let served = Reloaded { loaded: false, diagnostics, refusal, ..served };
        self.note("start", self.as_of_now(served, begun));
        Ok(())
    }

    /// The last good configuration, compiled, where there is one that the files differ from.
    fn kept_beside(&self, load: &Load) -> Option<Ready> {
        let (settings, files) = self.last_good.as_ref().and_then(LastGood::read)?;
        if load.compiled.is_some() && load.is_of(&settings, &files) {
            return None;
        }
        self.loader.load_kept(settings, &files, &Snapshot::default()).ready()
    }

    fn serve_first(
        &mut self,
        load: Load,
        is_good: bool,
        begun: Instant,
    ) -> Result<Reloaded, CannotStart> {
        self.standing.tell(&load.diagnostics, self.loader.sources());
        let (load, prepared) = self.find_sockets(load)?;
        self.serve_ready(load, prepared, is_good, begun).map_err(Into::into)
    }

    /// One load, from the files to the sockets.
    fn serve(&mut self, load: Load, cause: Cause, begun: Instant) -> Result<Reloaded, NotServed> {
        let (load, prepared) = match load.compiled {
            Some(_) => self.find_sockets(load)?,
            None => (load, Prepared::default()),
        };
        let new_faults = self.admit(&load, cause).map_err(NotServed::Files)?;
        self.standing.tell(&load.diagnostics, self.loader.sources());
        self.serve_ready(load, prepared, new_faults == 0, begun)
    }

    /// How many new faults a load has that may replace what serves.
    fn admit(&self, load: &Load, cause: Cause) -> Result<usize, Refusal> {
        let snapshot = &self.gateway.snapshot.load();
        let handed_over = &self.sockets.handed_over();
        let running =
            self.accepted.as_ref().map(|accepted| Running { snapshot, accepted, handed_over });
        let allow_removal = cause == Cause::Asked { allow_removal: true };
        match cause {
            // Validation has refused what an API server would; all else becomes conditions.
            Cause::Api if load.compiled.is_some() => Ok(0),
            _ => admission::judge(load, running, Rules { policy: self.policy, allow_removal }),
        }
    }

    /// The sockets of a load. A port that somebody else has takes its listeners out, where something
    /// runs already that is not to wait for it.
    fn find_sockets(&self, load: Load) -> Result<(Load, Prepared), NotServed> {
        let Some(compiled) = &load.compiled else { return Ok((load, Prepared::default())) };
        let running = self.gateway.snapshot.load();
        let failed = match self.sockets.prepare(&compiled.snapshot) {
            Ok(prepared) => return Ok((load, prepared)),
            Err(failed) => failed,
        };
        if !can_do_without(&running, &failed) {
            return Err(NotServed::Binds(failed));
        }
        let load = self.loader.without(load, &running, &failed);
        let prepared = load.compiled.as_ref().map(|next| self.sockets.prepare(&next.snapshot));
        let prepared = prepared.unwrap_or_else(|| Ok(Prepared::default()));
        prepared.map(|prepared| (load, prepared)).map_err(NotServed::Binds)
    }

    /// Serves a load. If it `is_good`, it is kept for a start at which the files do not load.
    fn serve_ready(
        &mut self,
        load: Load,
        prepared: Prepared,
        is_good: bool,
        begun: Instant,
    ) -> Result<Reloaded, NotServed> {
        let diagnostics = Reloaded::told(&load.diagnostics);
        let faults = load.diagnostics.clone();
        let Some(ready) = load.ready() else {
            let causes = faults.into_iter().filter(|one| one.severity == Severity::Error).collect();
            return Err(NotServed::Files(Refusal { causes, ..Refusal::default() }));
        };
        let reloaded = self.publish(ready, prepared, begun)?;
        if let (true, Some(last_good), Some(accepted)) = (is_good, &self.last_good, &self.accepted)
            && let Err(error) = last_good.keep(&accepted.settings, &accepted.files)
        {
            tracing::warn!("the configuration cannot be kept for a start without it: {error}");
        }
        Ok(Reloaded { diagnostics, ..reloaded })
    }

    /// Serves what was loaded, or changes nothing. The load began at `begun`.
    fn publish(
        &mut self,
        ready: Ready,
        mut prepared: Prepared,
        begun: Instant,
    ) -> Result<Reloaded, NotServed> {
        let Ready { compiled, accepted, sources, api_dir, files, objects } = ready;
        let Compiled { snapshot, statuses, held, .. } = compiled;
        let new = std::mem::take(&mut prepared.new).into_iter();
        let copies: Vec<_> = new
            .map(|(bind, socket, server)| {
                self.workers.copies(socket, &server).map(|copies| (bind, socket, copies))
            })
            .collect::<Result<_, _>>()
            .map_err(NotServed::Copies)?;
        for warning in &prepared.warnings {
            tracing::warn!("{warning}");
        }

        // From here on nothing can fail.
        let (generation, counts) = (snapshot.generation, snapshot.counts);
        self.conditions = Conditions::default();
        for (key, status) in statuses.objects() {
            self.conditions.add(&key.to_string(), &status);
        }
        let statuses = statuses.objects().map(|(key, status)| (key.clone(), status));
        self.api.show(sources, statuses, api_dir.as_deref());
        self.api_dir = api_dir;
        self.accepted = Some(accepted);
        self.gateway.access_log.files().make_missing();
        // Before the first request that is traced.
        self.tasks.serve(&snapshot);
        self.gateway.snapshot.publish(snapshot);
        self.sockets.commit(&mut prepared);
        for (bind, socket, copies) in copies {
            self.workers.listen(bind, socket, copies);
        }
        for socket in prepared.gone {
            self.workers.close(socket);
        }
        if let Some(Err(error)) = self.addresses.as_mut().map(|kept| kept.keep(&held)) {
            tracing::warn!("the addresses of Gateways cannot be kept for the next start: {error}");
        }
        self.loader.remember(held);
        let took = clock::now().saturating_duration_since(begun);
        tracing::info!(
            generation,
            took_ms = whole_millis(took),
            "serving {} on {} to {}, from {} in {}",
            counted(counts.routes, "route"),
            counted(counts.listeners, "listener"),
            counted(counts.backends, "backend"),
            counted(objects, "object"),
            counted(files, "file"),
        );
        warn_if_slow(took);
        Ok(Reloaded { loaded: true, files, objects, ..Reloaded::default() })
    }

    /// Says why a load is not served, where it is to be known.
    fn tell(&mut self, not_served: &NotServed, cause: Cause) -> Reloaded {
        let (refused, refusal) = match not_served {
            NotServed::Files(refusal) => {
                self.standing.tell_refused(refusal);
                (None, Some(socket::Refusal::from(refusal)))
            }
            NotServed::Binds(failed) => (Some(list(failed)), None),
            NotServed::Copies(error) => (Some(format!("{NO_DESCRIPTOR}: {error}")), None),
        };
        if let Some(refused) = &refused {
            tracing::error!("{refused}");
        }
        // A change over the API is undone, and leaves nothing to be mended.
        if cause != Cause::Api {
            let trouble = match not_served {
                NotServed::Files(refusal) => Some(refusal.to_string()),
                NotServed::Binds(_) | NotServed::Copies(_) => refused.clone(),
            };
            self.refused(trouble, refusal.clone());
        }
        Reloaded { loaded: false, refused, refusal, ..Reloaded::default() }
    }

    /// Notes for whoever asks why the files are not what is served; `None` if they are.
    fn refused(&mut self, trouble: Option<String>, refusal: Option<socket::Refusal>) {
        self.reloads.files_refused.set(u64::from(trouble.is_some()));
        (self.trouble, self.refusal) = (trouble, refusal);
    }

    /// With what is served now, and how long it took.
    fn as_of_now(&self, reloaded: Reloaded, begun: Instant) -> Reloaded {
        let snapshot = self.gateway.snapshot.load();
        let took = clock::now().saturating_duration_since(begun);
        Reloaded {
            serving: Serving::new(snapshot.generation, snapshot.counts),
            took_ms: u64::try_from(took.as_millis()).unwrap_or(u64::MAX),
            ..reloaded
        }
    }

    /// Keeps the result of a load, for those who ask later.
    fn note(&mut self, cause: &str, came_to: Reloaded) {
        if let Some(before) = self.past.front_mut() {
            before.came_to.diagnostics = Vec::new();
        }
        let at = jiff::Timestamp::try_from(clock::wall()).unwrap_or_default();
        let at = format!("{at:.0}");
        self.past.push_front(Past { at, cause: cause.into(), came_to });
        self.past.truncate(PAST);
    }

    fn count(&self, loaded: bool, begun: Instant) {
        let reloads = &self.reloads;
        let took = clock::now().saturating_duration_since(begun);
        reloads.last_took.set(u64::try_from(took.as_micros()).unwrap_or(u64::MAX));
        reloads.last_was_loaded.set(u64::from(loaded));
        if loaded {
            reloads.loaded.one_more();
            let since = clock::wall().duration_since(SystemTime::UNIX_EPOCH);
            reloads.last_loaded_at.set(since.map_or(0, |since| since.as_secs()));
        } else {
            reloads.refused.one_more();
        }
    }
}

/// True if it is better to serve on without these binds than to refuse the load.
fn can_do_without(running: &Snapshot, failed: &[CannotBind]) -> bool {
    running.generation > 0 && failed.iter().all(|one| !one.ours)
}

/// A load holds up the control loop, and with it the watchdog.
fn warn_if_slow(took: Duration) {
    if took > Duration::from_secs(5) {
        tracing::warn!("the configuration took {} s to load", took.as_secs());
    }
}

impl From<NotServed> for CannotStart {
    fn from(not_served: NotServed) -> Self {
        match not_served {
            NotServed::Binds(failed) => Self::Binds(failed),
            NotServed::Copies(source) => Self::Copies { source },
            NotServed::Files(Refusal { causes, .. }) => Self::Configuration(causes),
        }
    }
}
