import numpy as np

from edgeship.source.difference import relative_difference


def test_the_difference_is_relative_to_the_largest_magnitude() -> None:
    expected = np.array([-8, 0, 4], np.float32)
    assert relative_difference(expected, expected + np.float32(2)) == 0.25
    zeros = np.zeros(3, np.float32)
    assert relative_difference(zeros, zeros + np.float32(2)) == 2
    assert relative_difference(np.zeros(0, np.float32), np.zeros(0, np.float32)) == 0


def test_integers_and_booleans_are_compared_as_numbers() -> None:
    assert relative_difference(np.array([0, 255], np.uint8), np.array([255, 0], np.int32)) == 1
    assert relative_difference(np.array([True, False]), np.array([True, False])) == 0
