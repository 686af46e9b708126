"""`make gpu-check`: whether everything that a trial needs works on this GPU, part by part, with one page of results.

The parts are the same on a CPU, where the tests run them on micro. What only a GPU has (graphs, its memory, its speed) is then
left out.
"""
