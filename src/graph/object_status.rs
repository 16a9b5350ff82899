//! The status of one object of any kind.

use crate::api::{Condition, ObjectKey, ParentReference};

use super::status::{
    AncestorStatus, GatewayClassStatus, GatewayStatus, ListenerSetStatus, ObjectStatuses,
    ParentStatus, PolicyStatus, RouteStatus,
};

/// The status of an object.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum ObjectStatus {
    Class(GatewayClassStatus),
    Gateway(GatewayStatus),
    ListenerSet(ListenerSetStatus),
    Policy(PolicyStatus),
    Route(RouteStatus),
}

/// A part of a status that has conditions.
#[derive(Clone, Copy, Debug)]
pub(crate) enum StatusPart<'s> {
    /// The object as a whole.
    Whole,
    /// A Gateway or ListenerSet that a policy applies to.
    Ancestor(&'s AncestorStatus),
    /// A listener of the object, by name.
    Listener(&'s str),
    /// A parent of a route.
    Parent(&'s ParentReference),
}

impl ObjectStatuses {
    /// Returns the status of each object.
    pub(crate) fn into_objects(self) -> impl Iterator<Item = ObjectStatus> {
        let Self { classes, gateways, listener_sets, routes, policies } = self;
        let classes = classes.into_iter().map(ObjectStatus::Class);
        let gateways = gateways.into_iter().map(ObjectStatus::Gateway);
        let sets = listener_sets.into_iter().map(ObjectStatus::ListenerSet);
        let routes = routes.into_iter().map(ObjectStatus::Route);
        let policies = policies.into_iter().map(ObjectStatus::Policy);
        classes.chain(gateways).chain(sets).chain(routes).chain(policies)
    }
}

impl ObjectStatus {
    pub(crate) fn key(&self) -> &ObjectKey {
        match self {
            Self::Class(status) => &status.key,
            Self::Gateway(status) => &status.key,
            Self::ListenerSet(status) => &status.key,
            Self::Policy(status) => &status.key,
            Self::Route(status) => &status.key,
        }
    }

    /// Returns every part with conditions, and its conditions. The object as a whole comes first.
    pub(crate) fn parts(&self) -> Vec<(StatusPart<'_>, &[Condition])> {
        match self {
            Self::Class(status) => vec![(StatusPart::Whole, &status.conditions[..])],
            Self::Gateway(GatewayStatus { conditions, listeners, .. })
            | Self::ListenerSet(ListenerSetStatus { conditions, listeners, .. }) => {
                let whole = (StatusPart::Whole, &conditions[..]);
                let listeners = listeners.iter();
                let listeners =
                    listeners.map(|of| (StatusPart::Listener(&of.name), &of.conditions[..]));
                std::iter::once(whole).chain(listeners).collect()
            }
            Self::Policy(status) => {
                let ancestors = status.ancestors.iter();
                ancestors.map(|of| (StatusPart::Ancestor(of), &of.conditions[..])).collect()
            }
            Self::Route(status) => {
                let parents = status.parents.iter();
                parents.map(|of| (StatusPart::Parent(&of.parent), &of.conditions[..])).collect()
            }
        }
    }

    /// Returns the conditions of every part, in the order of [`parts`](Self::parts).
    pub(crate) fn conditions_mut(&mut self) -> Vec<&mut Vec<Condition>> {
        match self {
            Self::Class(status) => vec![&mut status.conditions],
            Self::Gateway(GatewayStatus { conditions, listeners, .. })
            | Self::ListenerSet(ListenerSetStatus { conditions, listeners, .. }) => {
                let listeners = listeners.iter_mut().map(|of| &mut of.conditions);
                std::iter::once(conditions).chain(listeners).collect()
            }
            Self::Policy(PolicyStatus { ancestors, .. }) => {
                ancestors.iter_mut().map(|of| &mut of.conditions).collect()
            }
            Self::Route(RouteStatus { parents, .. }) => {
                parents.iter_mut().map(|ParentStatus { conditions, .. }| conditions).collect()
            }
        }
    }
}

impl StatusPart<'_> {
    /// Returns true if both refer to the same part, regardless of their conditions.
    pub(crate) fn is_same(&self, other: &StatusPart<'_>) -> bool {
        match (self, other) {
            (Self::Whole, StatusPart::Whole) => true,
            (Self::Ancestor(one), StatusPart::Ancestor(other)) => one.is_of_same(other),
            (Self::Listener(one), StatusPart::Listener(other)) => one == other,
            (Self::Parent(one), StatusPart::Parent(other)) => one == other,
            _ => false,
        }
    }
}

impl AncestorStatus {
    fn is_of_same(&self, other: &Self) -> bool {
        Self { conditions: Vec::new(), ..self.clone() }
            == Self { conditions: Vec::new(), ..other.clone() }
    }
}
