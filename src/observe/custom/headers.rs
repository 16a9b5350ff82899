//! Headers of an exchange that the access log of a Gateway needs.

use std::cell::RefCell;

use http::{HeaderMap, HeaderName, HeaderValue};

/// Limit on the lists of headers that a thread keeps for reuse.
const SPARES: usize = 64;

/// The names of the headers that the settings of a Gateway need.
#[derive(Debug, Default)]
pub(crate) struct Wanted {
    request: Vec<HeaderName>,
    response: Vec<HeaderName>,
}

impl Wanted {
    pub(super) fn request(&mut self, name: HeaderName) -> usize {
        place_of(&mut self.request, name)
    }

    pub(super) fn response(&mut self, name: HeaderName) -> usize {
        place_of(&mut self.response, name)
    }
}

fn place_of(names: &mut Vec<HeaderName>, name: HeaderName) -> usize {
    names.iter().position(|known| *known == name).unwrap_or_else(|| {
        names.push(name);
        names.len() - 1
    })
}

/// The values of the headers of an exchange that its log needs. Most logs need none; it is then
/// empty and allocates nothing.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    /// The values of the request, then those of the response.
    values: Vec<Option<HeaderValue>>,
    of_request: usize,
}

thread_local! {
    static SPARE: RefCell<Vec<Vec<Option<HeaderValue>>>> = const { RefCell::new(Vec::new()) };
}

/// The empty list, for logs that need no headers.
static NOTHING: Seen = Seen { values: Vec::new(), of_request: 0 };

impl Seen {
    /// Returns the empty list.
    pub(crate) fn nothing() -> &'static Self {
        &NOTHING
    }

    /// Keeps the wanted headers of a request. A clone of a value shares its bytes.
    pub(crate) fn see_request(&mut self, wanted: &Wanted, headers: &HeaderMap) {
        let Wanted { request, response } = wanted;
        if request.is_empty() && response.is_empty() {
            return;
        }
        if self.values.capacity() == 0 {
            let spare = SPARE.try_with(|spare| spare.try_borrow_mut().ok()?.pop());
            self.values = spare.ok().flatten().unwrap_or_default();
        }
        self.values.clear();
        self.values.extend(request.iter().map(|name| headers.get(name).cloned()));
        self.of_request = request.len();
        self.values.resize(request.len() + response.len(), None);
    }

    /// Keeps the wanted headers of a response.
    pub(crate) fn see_response(&mut self, wanted: &Wanted, headers: &HeaderMap) {
        let Wanted { request, response } = wanted;
        if response.is_empty() {
            return;
        }
        // Needed if the request was refused before its headers were read.
        self.of_request = request.len();
        self.values.resize(request.len() + response.len(), None);
        for (value, name) in self.values[self.of_request..].iter_mut().zip(response) {
            *value = headers.get(name).cloned();
        }
    }

    pub(in crate::observe) fn request(&self, place: usize) -> Option<&[u8]> {
        self.values[..self.of_request].get(place)?.as_ref().map(HeaderValue::as_bytes)
    }

    pub(in crate::observe) fn response(&self, place: usize) -> Option<&[u8]> {
        self.values[self.of_request..].get(place)?.as_ref().map(HeaderValue::as_bytes)
    }
}

impl Drop for Seen {
    fn drop(&mut self) {
        if self.values.capacity() == 0 {
            return;
        }
        let mut values = std::mem::take(&mut self.values);
        values.clear();
        // Fails only while the thread ends.
        let _ = SPARE.try_with(|spare| {
            if let Ok(mut spare) = spare.try_borrow_mut()
                && spare.len() < SPARES
            {
                spare.push(values);
            }
        });
    }
}
