"""Peers of rwalk's registration: SimpleITK's Demons, on the cubes of 4 and of 2 voxels, 50 iterations each.

A function takes `fixed` and `moving` (float32 `[x, y, z]`) and `moving_labels` (int32), and returns the callable to
time, whose result is the label map carried to the fixed image by the nearest voxel.
"""

import numpy as np

LEVELS = ((4, 50), (2, 50))  # edge of the cubes, iterations
DEVIATION = 1.0  # of the smoothing of the field, voxels


def demons(arrays):
    """`DemonsRegistrationFilter`, Thirion's."""
    return _demons(arrays, "DemonsRegistrationFilter")


def symmetric(arrays):
    """`FastSymmetricForcesDemonsRegistrationFilter`."""
    return _demons(arrays, "FastSymmetricForcesDemonsRegistrationFilter")


def _demons(arrays, name):
    import SimpleITK as sitk

    fixed, moving, labels = (
        sitk.GetImageFromArray(arrays[key].transpose(2, 1, 0)) for key in ("fixed", "moving", "moving_labels")
    )

    def smaller(image, factor):
        return sitk.Shrink(sitk.SmoothingRecursiveGaussian(image, factor / 2), [factor] * 3)

    def run():
        field = None
        for factor, iterations in LEVELS:
            small, other = smaller(fixed, factor), smaller(moving, factor)
            filter_ = getattr(sitk, name)()
            filter_.SetNumberOfIterations(iterations)
            filter_.SetSmoothDisplacementField(True)
            filter_.SetStandardDeviations(DEVIATION)
            field = filter_.Execute(small, other, *([] if field is None else [sitk.Resample(field, small)]))
        whole = sitk.Cast(sitk.Resample(field, fixed), sitk.sitkVectorFloat64)
        moved = sitk.Resample(labels, fixed, sitk.DisplacementFieldTransform(whole), sitk.sitkNearestNeighbor, 0)
        return np.ascontiguousarray(sitk.GetArrayFromImage(moved).transpose(2, 1, 0))

    return run
