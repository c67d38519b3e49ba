"""Copies of an image: found when noisy, cropped, mirrored, resampled; not found among different persons."""

from collections.abc import Callable
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from scipy import ndimage
from scipy.spatial.transform import Rotation

from conftest import HIPPOCAMPUS
from dlx.data.checks.copies import aligned_correlation, find_copies
from dlx.data.dataset import open_dataset
from dlx.data.geometry.orientation import orientation_of, turn_to_canonical
from dlx.data.thumbnails import Thumbnail, make_thumbnail
from dlx.data.volumes.reading import read_volume
from dlx.settings.spec import DataSpec

Image = np.ndarray[Any, Any]
NUM_PERSONS = 6


@pytest.fixture(scope="module")
def images() -> list[Image]:
    """The first channels of a few phantom subjects, as prepared."""
    data = DataSpec.model_validate({"source": f"phantom:subjects={NUM_PERSONS},size=48"})
    return [np.asarray(case.image[..., 0], np.float32) for case in open_dataset(data, cache_dir=None).cases]


def noisy(image: Image, share: float = 0.1) -> Image:
    return image + np.random.default_rng(0).normal(0, share * float(image.std()), image.shape)


ONE = (1.0, 1.0, 1.0)
COPIES: dict[str, tuple[Callable[[Image], Image], tuple[float, float, float]]] = {
    "noise": (noisy, ONE),
    "much noise": (lambda image: noisy(image, 0.5), ONE),
    "mirrored": (lambda image: image[:, :, ::-1], ONE),
    "mirrored with noise": (lambda image: noisy(image)[::-1, :, ::-1], ONE),
    "axes exchanged": (lambda image: image.transpose(2, 0, 1)[:, ::-1], ONE),
    "cropped on one side": (lambda image: image[5:], ONE),
    "cropped on all sides": (lambda image: noisy(image)[4:-4, 4:-4, 4:-4], ONE),
    "cropped and mirrored": (lambda image: image[2:, ::-1, 1:-3], ONE),
    "resampled": (lambda image: ndimage.zoom(image, 0.75, order=1), (4 / 3, 4 / 3, 4 / 3)),
    "resampled, spacing lost": (lambda image: ndimage.zoom(image, (1.4, 0.9, 1.0), order=1), ONE),
    "scaled": (lambda image: 3 * image + 100, ONE),
    "padded": (lambda image: np.pad(image, ((5, 0), (3, 3), (0, 6)), constant_values=image.min()), ONE),
}


@pytest.mark.parametrize("kind", COPIES)
def test_a_copy_is_found_and_only_its_original(images: list[Image], kind: str) -> None:
    change, spacing = COPIES[kind]
    originals = [make_thumbnail(image.astype(np.float16), ONE) for image in images]
    copy = make_thumbnail(change(images[2]).astype(np.float16), spacing)
    (found,) = find_copies(originals, [copy])
    assert (found.first, found.second) == (2, 0)
    assert 0.85 <= found.correlation <= 1.0001


def test_copies_are_found_on_either_side(images: list[Image]) -> None:
    originals = [make_thumbnail(image.astype(np.float16), ONE) for image in images[:3]]
    copies = [make_thumbnail(noisy(image).astype(np.float16), ONE) for image in images[1:3]]
    assert {(one.first, one.second) for one in find_copies(originals, copies)} == {(1, 0), (2, 1)}
    assert {(one.first, one.second) for one in find_copies(copies, originals)} == {(0, 1), (1, 2)}


def test_different_phantoms_are_no_copies(images: list[Image]) -> None:
    thumbnails = [make_thumbnail(image.astype(np.float16), ONE) for image in images]
    assert find_copies(thumbnails[:3], thumbnails[3:]) == []


def test_different_smooth_images_are_no_copies_though_their_spectra_are_alike() -> None:
    generator = np.random.default_rng(0)
    volumes = [ndimage.gaussian_filter(generator.normal(size=(60, 60, 60)), 6.0) for _ in range(8)]
    thumbnails = [make_thumbnail(volume.astype(np.float32), (1.0, 1.0, 1.0)) for volume in volumes]
    assert find_copies(thumbnails[:4], thumbnails[4:]) == []
    found = find_copies(thumbnails[:4], thumbnails[3:])  # one is on both sides
    assert [(copy.first, copy.second) for copy in found] == [(3, 0)]


def test_slices_are_compared_too(images: list[Image]) -> None:
    slices = [image[24:25] for image in images]
    originals = [make_thumbnail(image.astype(np.float16), ONE) for image in slices]
    for changed in (noisy(slices[1]), slices[1][:, ::-1], slices[1][:, 3:, :-2]):
        (found,) = find_copies(originals, [make_thumbnail(changed.astype(np.float16), ONE)])
        assert found.first == 1
    assert find_copies(originals[:3], originals[3:]) == []


@pytest.mark.parametrize("shape", [(4, 5, 6), (1, 7, 9), (1, 1, 900), (3, 400, 400), (400, 3, 400)])
def test_images_of_any_shape_are_compared_without_an_error(shape: tuple[int, int, int]) -> None:
    rng = np.random.default_rng(0)
    thumbnails = [make_thumbnail(rng.normal(size=shape).astype(np.float16), (5.0, 1.0, 0.5)) for _ in range(2)]
    flat = Thumbnail(np.zeros((16, 16, 16), np.float16), ONE)
    volume = make_thumbnail(rng.normal(size=(20, 22, 24)).astype(np.float16), ONE)
    assert find_copies([thumbnails[0], flat, volume], [thumbnails[1], flat]) == []


def test_the_aligned_correlation_of_a_shifted_image_is_one() -> None:
    image = np.random.default_rng(0).normal(size=(12, 14, 16)).astype(np.float32)
    assert aligned_correlation(image[2:, :-3], image[:, :, 4:]) == pytest.approx(1.0, abs=1e-3)
    assert aligned_correlation(image, np.zeros((12, 14, 16), np.float32)) == -1.0


def test_a_thumbnail_keeps_the_mean_and_the_extent() -> None:
    image = np.random.default_rng(0).normal(5, 1, size=(20, 100, 64)).astype(np.float16)
    thumbnail = make_thumbnail(image, (3.0, 1.0, 1.0))
    assert thumbnail.image.shape == (19, 32, 20)
    np.testing.assert_allclose(np.multiply(thumbnail.image.shape, thumbnail.cell_mm), (60.0, 100.0, 64.0))
    assert float(thumbnail.image.astype(np.float64).mean()) == pytest.approx(
        float(image.astype(float).mean()), abs=2e-3
    )


@pytest.mark.skipif(not HIPPOCAMPUS.exists(), reason="needs the hippocampus set")
def test_no_two_hippocampi_are_taken_for_copies() -> None:
    files = sorted((HIPPOCAMPUS / "imagesTr").glob("hippocampus_*.nii.gz"))[100:170]  # with both sides of some persons
    volumes = [read_volume(file) for file in files]
    scaled = [volume.array[0] / volume.array.std() for volume in volumes]
    thumbnails = [
        make_thumbnail(image.astype(np.float16), volume.spacing_mm)
        for image, volume in zip(scaled, volumes, strict=True)
    ]
    assert len(thumbnails) == 70
    assert find_copies(thumbnails[::2], thumbnails[1::2]) == []


@pytest.mark.parametrize("code", ["LPS", "RAS", "PIR", "SLA", "AIL", "RPI"])
def test_orientations_are_those_of_simpleitk_and_turning_undoes_them(code: str) -> None:
    import SimpleITK as sitk  # noqa: N813 - its usual name

    array = np.random.default_rng(0).random((4, 5, 6))
    stored = sitk.DICOMOrient(sitk.GetImageFromArray(array), code)
    assert orientation_of(np.array(stored.GetDirection()).reshape(3, 3)) == code
    np.testing.assert_array_equal(turn_to_canonical(sitk.GetArrayFromImage(stored), code), array)


@pytest.mark.parametrize("code", ["LPS", "RAS", "PIR", "SLA"])
@pytest.mark.parametrize("degrees", [(20, 0, 0), (0, -25, 10), (15, 15, -15)])
def test_oblique_axes_have_the_orientation_of_the_nearest_ones_as_in_nibabel(
    code: str, degrees: tuple[int, int, int]
) -> None:
    to_right_front_up = nib.orientations.inv_ornt_aff(
        nib.orientations.ornt_transform(
            nib.orientations.axcodes2ornt("RAS"), nib.orientations.axcodes2ornt(tuple(code))
        ),
        (9, 9, 9),
    )[:3, :3]
    direction = Rotation.from_euler("xyz", degrees, degrees=True).as_matrix() @ to_right_front_up
    affine = np.eye(4)
    affine[:3, :3] = direction
    assert "".join(nib.aff2axcodes(affine)) == code
    assert orientation_of(np.diag([-1.0, -1.0, 1.0]) @ direction) == code  # nibabel's x and y run the other way
