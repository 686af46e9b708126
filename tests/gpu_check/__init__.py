"""`make gpu-check`: whether everything that a trial needs works on this GPU, part by part, with one page of results.

The parts are the same on a CPU, where the tests run them on micro; what only a GPU has is then left out and said to be.
"""
