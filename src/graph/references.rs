//! The references of a route's rules: backendRefs, and references of filters.

use std::collections::BTreeSet;

use crate::api::{
    self, BackendName, BackendRef, GrpcRouteFilter, HttpRouteFilter, Kind, LocalObjectReference,
    ObjectKey, PlainBackendRef,
};

use super::backends::{BackendLookup, BackendTarget, BrokenRef, Resolved, resolve};
use super::extension_filters::{self, ExtensionFilter};
use super::verdict::Faults;

/// The references of one rule after their lookup, nested as in the rule.
#[derive(Debug, Default)]
pub(crate) struct RuleRefs<'a> {
    /// One entry for each of `backendRefs`.
    pub backends: Vec<Resolved<'a>>,
    /// One entry for each of `filters`.
    pub filters: Vec<FilterRefs<'a>>,
    /// One entry for each of the `filters` of each of `backendRefs`.
    pub backend_filters: Vec<Vec<FilterRefs<'a>>>,
    /// The BackendTLSPolicies for the backends of the rule, as indexes.
    pub policies: BTreeSet<usize>,
}

/// The reference of a filter, after its lookup.
#[derive(Debug)]
pub(crate) enum FilterRefs<'a> {
    /// `extensionRef` to something that is not supported.
    BrokenExtension(BrokenRef),
    /// `extensionRef` to an HTTPRouteFilter.
    Extension(ExtensionFilter<'a>),
    /// `requestMirror.backendRef`
    Mirror(Resolved<'a>),
    Nothing,
}

impl<'a> RuleRefs<'a> {
    /// Returns the targets of all valid references of the rule, mirrors included.
    pub(super) fn targets(&self) -> impl Iterator<Item = &BackendTarget<'a>> {
        let filters = self.filters.iter().chain(self.backend_filters.iter().flatten());
        let mirrors = filters.filter_map(|filter| match filter {
            FilterRefs::Mirror(Ok(target)) => Some(target),
            _ => None,
        });
        self.backends.iter().filter_map(|backend| backend.as_ref().ok()).chain(mirrors)
    }

    /// Returns all broken references of the rule.
    pub(super) fn broken(&self) -> impl Iterator<Item = &BrokenRef> {
        let filters = self.filters.iter().chain(self.backend_filters.iter().flatten());
        let of_filters = filters.filter_map(|filter| match filter {
            FilterRefs::BrokenExtension(broken) | FilterRefs::Mirror(Err(broken)) => Some(broken),
            FilterRefs::Extension(_) | FilterRefs::Mirror(Ok(_)) | FilterRefs::Nothing => None,
        });
        self.backends.iter().filter_map(|backend| backend.as_ref().err()).chain(of_filters)
    }
}

/// The lookup of the references of one route.
pub(super) struct RuleLookup<'l, 'a> {
    pub route: &'l ObjectKey,
    pub backends: BackendLookup<'l, 'a>,
    pub faults: &'l mut Faults,
}

impl<'a> RuleLookup<'_, 'a> {
    pub(super) fn rule<F: FilterReferences>(
        &mut self,
        rule: usize,
        refs: &[BackendRef<F>],
        filters: &[F],
    ) -> RuleRefs<'a> {
        let filters_found = filters.iter().enumerate().map(|(place, filter)| {
            self.filter(filter, &|| format!("spec.rules[{rule}].filters[{place}]"))
        });
        let mut found = RuleRefs {
            filters: filters_found.collect(),
            backends: Vec::with_capacity(refs.len()),
            backend_filters: Vec::with_capacity(refs.len()),
            policies: BTreeSet::new(),
        };
        for (place, reference) in refs.iter().enumerate() {
            let field = || format!("spec.rules[{rule}].backendRefs[{place}]");
            let object = reference.object();
            found.backends.push(self.backend(object, &field));
            found.policies.extend(self.backends.encryption.naming(object, self.route));
            let filters = reference.filters.iter().enumerate().map(|(number, filter)| {
                self.filter(filter, &|| format!("{}.filters[{number}]", field()))
            });
            found.backend_filters.push(filters.collect());
        }
        let (of_rule, of_backends) = (filters.iter(), refs.iter().flat_map(|of| &of.filters));
        for mirror in of_rule.chain(of_backends).filter_map(F::mirror) {
            found.policies.extend(self.backends.encryption.naming(mirror, self.route));
        }
        found
    }

    /// Looks up the references of a rule that has only `backendRefs`.
    pub(super) fn plain_rule(&mut self, rule: usize, refs: &[PlainBackendRef]) -> RuleRefs<'a> {
        let refs = refs.iter().enumerate();
        let backends = refs
            .map(|(place, reference)| {
                let field = || format!("spec.rules[{rule}].backendRefs[{place}]");
                self.backend(reference.object(), &field)
            })
            .collect();
        RuleRefs { backends, ..RuleRefs::default() }
    }

    /// Looks up a reference at `field`.
    fn backend(&mut self, reference: BackendName<'_>, field: &dyn Fn() -> String) -> Resolved<'a> {
        let resolved = resolve(reference, self.route, self.backends);
        match &resolved {
            Err(broken) => {
                let field = match broken.field {
                    "" => field(),
                    rest => format!("{}.{rest}", field()),
                };
                self.faults.error_of(broken.origin(), self.route, field, &*broken.problem);
            }
            Ok(target) => {
                if let Some(problem) = target.lacks(self.route.kind) {
                    self.faults.warning(self.route, field(), problem);
                }
            }
        }
        resolved
    }

    fn filter(
        &mut self,
        filter: &impl FilterReferences,
        field: &dyn Fn() -> String,
    ) -> FilterRefs<'a> {
        if let Some(reference) = filter.mirror() {
            let field = || format!("{}.requestMirror.backendRef", field());
            return FilterRefs::Mirror(self.backend(reference, &field));
        }
        let Some(extension) = filter.extension() else { return FilterRefs::Nothing };
        let LocalObjectReference { group, kind, name } = extension;
        let found = Kind::find(group, kind).map(|info| info.kind);
        let problem = match found {
            Some(Kind::RouteFilter) => {
                match extension_filters::look_up(extension, self.route, self.backends.index) {
                    Ok(found) => return FilterRefs::Extension(found),
                    Err(broken) => return self.broken_extension(broken, field),
                }
            }
            Some(_) => format!(
                "{kind} `{name}` is not supported yet as a filter; requests that should pass \
                 through it are answered 500"
            ),
            None => format!(
                "`{kind}.{group}` is no filter of this gateway; requests that should pass through \
                 it are answered 500"
            ),
        };
        let broken = BrokenRef::new("InvalidKind", "", problem);
        let broken = match found {
            Some(kind) => broken.of(ObjectKey::new(kind, &self.route.namespace, name)),
            None => broken,
        };
        self.broken_extension(broken, field)
    }

    fn broken_extension(
        &mut self,
        broken: BrokenRef,
        field: &dyn Fn() -> String,
    ) -> FilterRefs<'a> {
        let field = format!("{}.extensionRef", field());
        self.faults.error_of(broken.origin(), self.route, field, &*broken.problem);
        FilterRefs::BrokenExtension(broken)
    }
}

/// The references that filters of every route kind may have.
pub(super) trait FilterReferences {
    fn mirror(&self) -> Option<BackendName<'_>>;
    fn extension(&self) -> Option<&LocalObjectReference>;
}

impl FilterReferences for HttpRouteFilter {
    fn mirror(&self) -> Option<BackendName<'_>> {
        let mirror = self.request_mirror.as_deref().map(|mirror| mirror.backend_ref.object());
        mirror.filter(|_| self.kind == api::HttpFilterType::RequestMirror)
    }

    fn extension(&self) -> Option<&LocalObjectReference> {
        let extension = self.extension_ref.as_deref();
        extension.filter(|_| self.kind == api::HttpFilterType::ExtensionRef)
    }
}

impl FilterReferences for GrpcRouteFilter {
    fn mirror(&self) -> Option<BackendName<'_>> {
        let mirror = self.request_mirror.as_deref().map(|mirror| mirror.backend_ref.object());
        mirror.filter(|_| self.kind == api::GrpcFilterType::RequestMirror)
    }

    fn extension(&self) -> Option<&LocalObjectReference> {
        let extension = self.extension_ref.as_deref();
        extension.filter(|_| self.kind == api::GrpcFilterType::ExtensionRef)
    }
}
