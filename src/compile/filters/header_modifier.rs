//! Changes to headers, from their written form.

use http::HeaderValue;

use crate::api;
use crate::compile::misfit::Misfit;
use crate::config::FieldPath;
use crate::filters::HeaderModifier;
use crate::secret::is_secret_header;

use super::header_names::changeable;

/// Compiles changes to headers; `at` is their field.
pub(super) fn header_modifier(
    raw: &api::HeaderModifier,
    at: &FieldPath,
) -> Result<HeaderModifier, Misfit> {
    let pairs = |list: &[api::Header], of: &'static str| {
        let pairs = list.iter().enumerate().map(|(place, header)| {
            let name = changeable(&header.name, || at.clone().field(of).item(place).field("name"))?;
            let value = HeaderValue::from_bytes(header.value.as_bytes());
            let mut value = value.map_err(|_| Misfit::Reported)?;
            // A sensitive value prints as `Sensitive` and is not stored in an HPACK table.
            value.set_sensitive(is_secret_header(name.as_str()));
            Ok((name, value))
        });
        pairs.collect::<Result<Box<[_]>, Misfit>>()
    };
    let remove = raw
        .remove
        .iter()
        .enumerate()
        .map(|(place, name)| changeable(name, || at.clone().field("remove").item(place)));
    Ok(HeaderModifier {
        set: pairs(&raw.set, "set")?,
        add: pairs(&raw.add, "add")?,
        remove: remove.collect::<Result<_, _>>()?,
    })
}
