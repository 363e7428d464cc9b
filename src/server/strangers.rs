//! Connections that have not logged in. There may be only so many: whoever comes then takes the place
//! of the one that has had the longest time to, so that a crowd of idlers keeps nobody out.

use std::collections::BTreeMap;

use super::Id;

/// A place in the order in which they came, or in which their login ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place(u64);

/// Those who are there, the oldest first.
#[derive(Debug, Default)]
pub struct Strangers {
    by_place: BTreeMap<Place, Id>,
    next: u64,
}

impl Strangers {
    /// Another one.
    pub fn add(&mut self, id: Id) -> Place {
        let place = Place(self.next);
        self.next += 1;
        self.by_place.insert(place, id);
        place
    }

    /// It has logged in, or gone.
    pub fn remove(&mut self, place: Place) {
        self.by_place.remove(&place);
    }

    /// The oldest, if there are as many as there may be.
    pub fn one_too_many(&self, max: usize) -> Option<Id> {
        let is_full = self.by_place.len() >= max;
        let oldest = self.by_place.values().next().copied();
        oldest.filter(|_| is_full)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_goes_first_and_only_when_it_must() {
        let id = |key| Id { key, generation: 0 };
        let mut strangers = Strangers::default();
        assert_eq!(strangers.one_too_many(3), None);
        let places: Vec<Place> = (0..3).map(|key| strangers.add(id(key))).collect();
        assert_eq!(strangers.one_too_many(4), None);
        assert_eq!(strangers.one_too_many(3), Some(id(0)));
        strangers.remove(places[0]);
        assert_eq!(strangers.one_too_many(3), None);
        // Whose login ends is the youngest again.
        strangers.add(id(0));
        assert_eq!(strangers.one_too_many(3), Some(id(1)));
        strangers.remove(places[1]);
        strangers.remove(places[1]);
        assert_eq!(strangers.one_too_many(2), Some(id(2)));
    }
}
