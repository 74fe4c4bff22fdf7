//! From a place in the generated JavaScript back to the source.

/// One pair of positions; lines and columns from 0, columns in UTF-16 units as source maps have them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Mapping {
    pub generated_line: u32,
    pub generated_column: u32,
    pub source_line: u32,
    pub source_column: u32,
}

/// The positions of one file. Invariant: sorted by generated position.
#[derive(Clone, Debug)]
pub(crate) enum Positions {
    /// The source was run as it is.
    Same,
    /// The source was rewritten.
    Mapped(Box<[Mapping]>),
}

impl Positions {
    /// A map of these pairs, in any order.
    pub(crate) fn from_mappings(mut mappings: Vec<Mapping>) -> Positions {
        mappings.sort_unstable();
        mappings.dedup_by_key(|mapping| (mapping.generated_line, mapping.generated_column));
        Positions::Mapped(mappings.into_boxed_slice())
    }

    /// The source line and column of a generated line and column, all from 1.
    ///
    /// The nearest mapping at or before the position on its line counts, else the first on the line, else the last
    /// one before the line.
    pub(crate) fn source_of(&self, line: u32, column: u32) -> (u32, u32) {
        let Positions::Mapped(mappings) = self else { return (line, column) };
        let (line0, column0) = (line.saturating_sub(1), column.saturating_sub(1));
        let after = mappings.partition_point(|m| (m.generated_line, m.generated_column) <= (line0, column0));
        let before = after.checked_sub(1).map(|index| mappings[index]);
        let chosen = match (before, mappings.get(after)) {
            (Some(before), _) if before.generated_line == line0 => Some(before),
            (_, Some(next)) if next.generated_line == line0 => Some(*next),
            (before, _) => before,
        };
        chosen.map_or((line, column), |m| (m.source_line + 1, m.source_column + 1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nearest_mapping_wins() {
        let pair = |generated_line, generated_column, source_line, source_column| Mapping {
            generated_line,
            generated_column,
            source_line,
            source_column,
        };
        let map = Positions::from_mappings(vec![pair(2, 8, 20, 3), pair(0, 4, 10, 2), pair(2, 0, 20, 0)]);
        for (line, column, expected) in [
            (1, 5, (11, 3)),
            (1, 90, (11, 3)),
            (1, 1, (11, 3)),
            (2, 7, (11, 3)),
            (3, 1, (21, 1)),
            (3, 9, (21, 4)),
            (9, 9, (21, 4)),
        ] {
            assert_eq!(map.source_of(line, column), expected, "{line}:{column}");
        }
        assert_eq!(Positions::Same.source_of(3, 4), (3, 4));
        assert_eq!(Positions::from_mappings(Vec::new()).source_of(3, 4), (3, 4));
    }
}
