//! Images with realistic layer sizes.

use crate::template::{render, template};
use anyhow::Result;
use entrepot_e2e::Content;
use entrepot_e2e::push::Image;
use minijinja::context;

/// Where the sizes come from; the generated document cites it.
///
/// # Errors
/// If the template has a placeholder.
pub fn source() -> Result<String> {
    render(template!("layer_sizes"), context! {})
}

/// Compressed sizes in bytes. The order is such that the first size is near the average and the
/// first ten sizes are as mixed as all of them.
const SIZES: [u64; 20] = [
    8_203_833,
    626,
    29_780_905,
    955,
    403,
    6_443_022,
    1_210,
    33_325_076,
    1_397,
    116,
    115_397_538,
    1_167,
    1_256_766,
    29_830_418,
    3_138,
    1_311_722,
    19_418,
    128,
    6_108,
    186,
];

/// The sizes of a number of layers. If the number exceeds the list, the list repeats.
pub fn sizes(layers: usize) -> Vec<u64> {
    SIZES.iter().copied().cycle().take(layers).collect()
}

/// A new image with that number of layers.
pub fn image(layers: usize) -> Image {
    // The size of a typical config.
    let layers = sizes(layers).into_iter().map(Content::fresh).collect();
    Image::of(Content::fresh(8_000), layers, None)
}

/// Total size in bytes of the blobs of an image.
pub fn bytes(image: &Image) -> u64 {
    image.blobs().map(|blob| blob.size).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn images_of_any_number_of_layers_are_mixed() {
        assert_eq!(sizes(1), [8_203_833]);
        assert_eq!(sizes(50).len(), 50);
        assert_eq!(sizes(50)[20..40], SIZES);
        assert_eq!(bytes(&image(2)), 8_000 + 8_203_833 + 626);
    }
}
