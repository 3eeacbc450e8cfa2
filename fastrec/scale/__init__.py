"""Past one machine: several processes on one fit, and everybody's lists on a cluster"""
