//! Images as they are in the world, by the sizes of their layers.

use crate::Content;
use crate::push::Image;

/// Where the sizes come from, for the document.
pub const SOURCE: &str = "the layers of `nginx:latest` and `postgres:latest` for linux/amd64, as \
    [docker-library/repo-info](https://github.com/docker-library/repo-info) listed them in July and September 2026 \
    (`repos/nginx/remote/latest.md`, `repos/postgres/remote/latest.md`): 20 layers of 11.3 MB on average, half of them \
    below 20 kB";

/// Compressed sizes in bytes, in an order in which the first is near the average and the first ten are as mixed as all.
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

/// Sizes of so many layers; more than the list has begin again.
pub fn sizes(layers: usize) -> Vec<u64> {
    SIZES.iter().copied().cycle().take(layers).collect()
}

/// An image of so many layers that nobody had before.
pub fn image(layers: usize) -> Image {
    // A config has some kilobytes.
    let layers = sizes(layers).into_iter().map(Content::fresh).collect();
    Image::of(Content::fresh(8_000), layers, None)
}

/// Bytes of an image's blobs.
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
